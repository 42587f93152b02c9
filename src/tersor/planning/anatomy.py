"""The layers of a network as a cost model sees them: how much each does, as a function of what is left."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tersor.analysis.costs import Cost, shares
from tersor.graph.structure import Extent, Graph, Operation

#: Widths that kernels pad channels to.
PADDINGS = (8, 16)
#: Bits of a stored weight in each precision; `static` and `dynamic` compute in integers as well.
WEIGHT_BITS = {"float": 32.0, "static": 8.0, "dynamic": 8.0, "int8": 9.0, "int4": 5.0}
#: Precisions that leave everything but matrix products of linear layers in floating point.
LINEAR_ONLY = ("dynamic", "int8", "int4")
#: Bits of a table of embeddings in every integer precision.
TABLE_BITS = 8
#: Entries from which a table is worth the two operations that make values of its codes at each call: one megabyte.
LEAST_TABLE = 2**18


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of each unit of a network.

    Attributes:
        kept: units of each group that loses some.
        ranks: rank of each factorized layer.
        dropped: blocks that are gone.
    """

    kept: Mapping[str, int] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation that multiplies and adds.

    Attributes:
        name: path of its module; of the operation where it has no weight of its own.
        kind: `convolution`, `pointwise`, `depthwise`, `linear` or `product` (of two activations).
        macs: multiply-adds per sample.
        outputs: output values per sample.
        rows: output channels of its weight; 0 without one.
        columns: input channels of its weight.
        weights: elements of its weight.
        read: share of the inputs that is left.
        written: share of the outputs that is left.
    """

    name: str
    kind: str
    macs: int
    outputs: int
    rows: int
    columns: int
    weights: int
    read: Cost
    written: Cost

    def inside(self, block: str) -> bool:
        """Whether the layer is part of a block."""
        return self.name == block or self.name.startswith(block + ".")

    @property
    def groups(self) -> frozenset[str]:
        """Names of the groups that its work depends on."""
        return self.read.groups | self.written.groups

    def work(self, left: Left) -> tuple[float, float, float]:
        """Return (multiply-adds, the same with channels padded to 8, and to 16); zeros if its block is gone."""
        if any(self.inside(block) for block in left.dropped):
            return 0.0, 0.0, 0.0
        read, written = self.read(left.kept), self.written(left.kept)
        rank = left.ranks.get(self.name, 0)
        return tuple(self._macs(read, written, rank, width) for width in (1, *PADDINGS))  # type: ignore[return-value]  # three widths

    def _macs(self, read: float, written: float, rank: int, width: int) -> float:
        if not self.rows:
            return self.macs * read * written
        rows = _padded(self.rows * written, width)
        columns = self.columns * read if self.kind == "depthwise" else _padded(self.columns * read, width)
        if not rank:
            return self.macs * (rows / self.rows) * (columns / self.columns)
        inner = _padded(rank, width)
        return (
            self.macs * (columns / self.columns) * inner / self.rows + self.outputs / self.rows * inner * rows
        )

    def size(self, left: Left) -> float:
        """Return the elements of its weight that are left."""
        if any(self.inside(block) for block in left.dropped):
            return 0.0
        read, written = self.read(left.kept), self.written(left.kept)
        rank = left.ranks.get(self.name, 0)
        if not rank:
            return self.weights * read * written
        return rank * (self.weights / self.rows * read + self.rows * written)


def _padded(channels: float, width: int) -> float:
    return math.ceil(channels / width - 1e-9) * width


@dataclass(frozen=True)
class Anatomy:
    """A network as its layers.

    Attributes:
        layers: in the order of execution.
        others: every parameter that is no weight of a layer: its name, its elements, and the share that is left.
        tables: names of those among them that are tables of embeddings.
    """

    layers: tuple[Layer, ...]
    others: tuple[tuple[str, int, Cost], ...]
    tables: frozenset[str] = frozenset()

    def macs(self, left: Left) -> float:
        """Return the multiply-adds per sample."""
        return sum(layer.work(left)[0] for layer in self.layers)

    def bytes(self, left: Left, precision: str) -> float:
        """Return the bytes of all parameters when the weights of layers are stored in `precision`."""
        owned = {layer.name: layer for layer in self.layers if layer.rows}
        stored = sum(layer.size(left) * bits_of(layer, precision) / 8 for layer in owned.values())
        gone = tuple(f"{block}." for block in left.dropped)
        kept = (
            (name, size * share(left.kept)) for name, size, share in self.others if not name.startswith(gone)
        )
        return stored + sum(size * self._bits_beside(name, size, precision) / 8 for name, size in kept)

    def _bits_beside(self, name: str, size: float, precision: str) -> float:
        """Return the bits of an entry of a parameter that is no weight of a layer, of which `size` entries are left."""
        in_codes = precision != "float" and name in self.tables and size >= LEAST_TABLE
        return TABLE_BITS if in_codes else WEIGHT_BITS["float"]


def bits_of(layer: Layer, precision: str) -> float:
    """Return the bits in which `precision` stores a weight of `layer`."""
    return WEIGHT_BITS[precision if runs_in(layer, precision) else "float"]


def runs_in(layer: Layer, precision: str) -> bool:
    """Whether a layer runs in `precision`; else it stays in floating point."""
    if precision == "float" or not layer.rows:
        return precision == "float"
    return precision not in LINEAR_ONLY or layer.kind == "linear"


def anatomy(graph: Graph) -> Anatomy:
    """Return the layers of a traced network.

    Example:
        >>> import torch
        >>> from tersor.graph.trace import trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> found = anatomy(trace(net, (torch.zeros(1, 2),)))
        >>> found.macs(Left()), found.macs(Left({"0": 2})), found.bytes(Left(), "float")
        (12.0, 6.0, 68.0)
    """
    working = [operation for operation in graph.operations if operation.macs]
    axes = [_axes(operation, graph) for operation in working]
    read = shares(graph, (pair[0] for pair in axes))
    written = shares(graph, (pair[1] for pair in axes))
    layers = tuple(_layer(*parts, graph) for parts in zip(working, read, written, strict=True))
    looked_up = (
        f"{operation.module}.weight" for operation in graph.operations if "embedding" in operation.op
    )
    return Anatomy(layers, _others(layers, graph), frozenset(looked_up))


def _others(layers: Sequence[Layer], graph: Graph) -> tuple[tuple[str, int, Cost], ...]:
    weights = {f"{layer.name}.weight".lstrip(".") for layer in layers if layer.rows}
    axes: dict[str, list[Extent]] = {name: [] for name in graph.sizes if name not in weights}
    for (name, _), extent in graph.extents.items():
        if name in axes:
            axes[name].append(extent)
    return tuple(
        (name, graph.sizes[name], share)
        for name, share in zip(axes, shares(graph, axes.values()), strict=True)
    )


def _weight(operation: Operation, graph: Graph) -> str:
    """Return the name of the weight of an operation whose module has one; empty if it has none."""
    name = f"{operation.module}.weight" if operation.module else "weight"
    if name not in graph.sizes or (name, 0) not in graph.extents or operation.macs < graph.sizes[name]:
        return ""
    return name


def _axes(operation: Operation, graph: Graph) -> tuple[list, list]:
    name = _weight(operation, graph)
    if not name:
        return list(operation.extents), []
    own = graph.extents[name, 0]
    rest = [graph.extents[name, axis] for axis in (1,) if (name, axis) in graph.extents]
    return rest, [own]


def _layer(operation: Operation, read: Cost, written: Cost, graph: Graph) -> Layer:
    name = _weight(operation, graph)
    if not name:
        outputs = math.prod(operation.shape[1:])
        return Layer(operation.name, "product", operation.macs, outputs, 0, 0, 0, read, written)
    rows = graph.extents[name, 0].size
    columns = graph.extents[name, 1].size if (name, 1) in graph.extents else 1
    per_output = graph.sizes[name] // rows
    kind = _kind(operation, columns, per_output)
    return Layer(
        operation.module,
        kind,
        operation.macs,
        max(1, round(operation.macs / per_output)),
        rows,
        columns,
        graph.sizes[name],
        read,
        written,
    )


def _kind(operation: Operation, columns: int, per_output: int) -> str:
    if "conv" not in operation.op:
        return "linear"
    if per_output == columns:
        return "pointwise"
    return "depthwise" if columns == 1 and operation.macs and operation.shape[1] > 1 else "convolution"
