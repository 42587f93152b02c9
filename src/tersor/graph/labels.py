"""Labels: which cells every axis of every tensor of one forward pass carries.

Rules (`tersor.graph.rules`) speak to this class alone.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from tersor.graph.cells import FIXED, FREE, Axis, Cells, Vector

#: What a cell is for; the higher wins where cells are united.
ROLES = (
    "", "hidden", "channels", "stream", "group channels", "head features", "heads", "heads per kv group",
    "conv groups", "norm groups", "recurrent hidden",
)  # fmt: skip


@dataclass(slots=True)
class Call:
    """One ATen operation as it ran, its arguments by the names of its schema."""

    name: str
    args: dict[str, Any]
    out: Any
    writes: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str) -> Any:
        """Return an argument, or None where the schema has no such name."""
        return self.args.get(name)

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor among the arguments, lists included."""
        return [t for value in self.args.values() for t in tensors_of(value)]

    @property
    def outputs(self) -> list[Tensor]:
        """Every tensor that came out."""
        return list(tensors_of(self.out))


@lru_cache(maxsize=4096)
def _schema(func: Any) -> tuple[str, tuple[tuple[str, Any], ...]]:
    schema = func._schema
    return schema.name.removeprefix("aten::"), tuple(
        (a.name, a.default_value if a.has_default_value() else None) for a in schema.arguments
    )


def bind(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> Call:
    """Name the arguments of one call."""
    name, parameters = _schema(func)
    values = {
        key: args[i] if i < len(args) else kwargs.get(key, default)
        for i, (key, default) in enumerate(parameters)
    }
    return Call(name, values, out, func._schema.is_mutable)


def tensors_of(value: Any) -> Iterable[Tensor]:
    """Yield the tensors in a value, in lists, tuples and mappings too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)


@dataclass(slots=True)
class Labels:
    """The cells on every axis of every tensor seen so far.

    Attributes:
        cells: the coupling of all cells.
        opaque: operations without a rule, with the number of times that each ran.
        literal: for each axis of the output of the call that the user's code makes right now, whether its
            size is a plain number that surgery cannot follow; None where that is unknown.
        contracted: the axes that the current operation sums products over.
        factors: for the output of a grouped convolution or norm, the axis of its groups.
    """

    cells: Cells = field(default_factory=Cells)
    opaque: Counter[str] = field(default_factory=Counter)
    literal: tuple[bool, ...] | None = None
    contracted: list[Axis] = field(default_factory=list)
    factors: dict[int, Axis] = field(default_factory=dict)
    _strides: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _named: set[int] = field(default_factory=set)
    _axes: dict[int, tuple[int, list[Axis], tuple[int, ...]]] = field(default_factory=dict)
    _alive: list[Tensor] = field(default_factory=list)

    def of(self, tensor: Tensor) -> list[Axis]:
        """Return the axes of a tensor; those never labelled are fixed."""
        axes, shape = self.last(tensor)
        if shape != tuple(tensor.shape):
            for axis in axes:
                self.cells.freeze(axis, "changes its shape in place")
            return [[] for _ in tensor.shape]
        return axes

    def last(self, tensor: Tensor) -> tuple[list[Axis], tuple[int, ...]]:
        """Return the axes and the shape that a tensor was labelled with, before an operation in place."""
        found = self._axes.get(id(tensor))
        if found is None:
            return [[] for _ in tensor.shape], tuple(tensor.shape)
        version, axes, shape = found
        if version != self.cells.version:
            axes = [self.cells.resolve(axis) if axis else axis for axis in axes]
            self._axes[id(tensor)] = (self.cells.version, axes, shape)
        return [list(axis) for axis in axes], shape

    def stride(self, tensor: Tensor) -> tuple[int, ...]:
        """Return the strides that a tensor was labelled with, before an operation in place."""
        now = tuple(tensor.stride(axis) for axis in range(tensor.dim()))
        return self._strides.get(id(tensor), now)

    def name(self, tensor: Tensor, axes: Sequence[Axis]) -> None:
        """Label a parameter or buffer."""
        self._named.add(id(tensor))
        self.put(tensor, axes)

    def computed(self, value: object) -> bool:
        """Whether a value is a tensor that the forward pass made."""
        return isinstance(value, Tensor) and id(value) not in self._named

    def put(self, tensor: Tensor, axes: Sequence[Axis]) -> None:
        """Label a tensor; it is kept alive so that its identity stays its own."""
        kept = []
        for axis, size in zip(axes, tensor.shape, strict=True):
            if size == 1 and axis:
                self.cells.freeze(axis, "is the only index left of an axis")
            kept.append(list(axis) if size > 1 else [])
        self._axes[id(tensor)] = (-1, kept, tuple(tensor.shape))
        self._strides[id(tensor)] = tuple(tensor.stride(axis) for axis in range(tensor.dim()))
        self._alive.append(tensor)

    def put_fixed(self, tensor: Tensor) -> None:
        """Label a tensor with axes that cannot change."""
        self.put(tensor, [[] for _ in tensor.shape])

    def fresh(self, size: int, role: str = "") -> Axis:
        """Return an axis of new cells."""
        return [self.cells.fresh(size, ROLES.index(role))] if size > 1 else []

    def put_fresh(self, tensor: Tensor, role: str = "") -> None:
        """Label every axis of a tensor with new cells."""
        self.put(tensor, [self.fresh(size, role) for size in tensor.shape])

    def mark(self, axis: Axis, role: str) -> None:
        """Say what the cells of an axis are for."""
        for vector in self.cells.resolve(axis):
            cells = vector[vector >= 0]
            self.cells.role[cells] = np.maximum(self.cells.role[cells], ROLES.index(role))

    def freeze(self, axis: Axis, reason: str) -> None:
        """Keep all indices of an axis."""
        self.cells.freeze(axis, reason)

    def freeze_tensor(self, tensor: Tensor, reason: str) -> None:
        """Keep all indices of all axes of a tensor."""
        for axis in self.of(tensor):
            self.cells.freeze(axis, reason)

    def unify(self, first: Axis, second: Axis, reason: str) -> Axis:
        """Make two axes lose the same indices; return what they then carry."""
        return self.cells.unify(first, second, reason)

    def contract(self, first: Axis, second: Axis, reason: str) -> None:
        """Unify two axes that are multiplied and summed over."""
        self.contracted.append(self.unify(first, second, reason))

    def broadcast(self, tensors: Sequence[Tensor], out: Tensor, reason: str) -> list[Axis]:
        """Unify the axes of operands that broadcast to `out`, and return the axes of the result."""
        result: list[Axis] = []
        for axis in range(out.dim()):
            met: list[Axis] = []
            for tensor in tensors:
                own = axis - (out.dim() - tensor.dim())
                if own >= 0 and (tensor.shape[own] != 1 or out.shape[axis] == 1):
                    met.append(self.of(tensor)[own])
            result.append(self.unify_all(met, reason))
        return result

    def unify_all(self, axes: Sequence[Axis], reason: str) -> Axis:
        """Unify any number of axes."""
        if not axes:
            return []
        common = axes[0]
        for axis in axes[1:]:
            common = self.unify(common, axis, reason)
        return self.cells.resolve(common)

    def reshape(
        self,
        axes: Sequence[Axis],
        old: Sequence[int],
        new: Sequence[int],
        literal: Sequence[bool] | None = None,
    ) -> list[Axis]:
        """Return the axes after a reshape: merged vectors are repeated and tiled, split cells are refined.

        Where the user's code gives the size of a new axis as a plain number, that axis stays whole: its
        rows are united instead.
        """
        result: list[Axis] = [[] for _ in new]
        if 0 in old:
            return result
        for before, after in _blocks(old, new):
            sources = [i for i in before if old[i] != 1]
            targets = [j for j in after if new[j] != 1]
            merged = _merge([axes[i] for i in sources], [old[i] for i in sources])
            if len(targets) == 1:
                result[targets[0]] += merged
                continue
            shape = [new[j] for j in targets]
            whole = [bool(literal and literal[j]) for j in targets]
            for vector in merged:
                for place, part in self._split(vector, shape, whole):
                    result[targets[place]].append(part)
        return result

    def _split(self, vector: Vector, shape: list[int], whole: list[bool]) -> list[tuple[int, Vector]]:
        """Return for each new axis that the vector varies along its place and its own vector."""
        block = vector.reshape(shape)
        for place, is_whole in enumerate(whole):
            if is_whole:
                first = np.take(block, [0], axis=place)
                self.cells.union(np.broadcast_to(first, block.shape).ravel(), block.ravel())
                block = self.cells.roots(block.ravel()).reshape(shape)
        varying = [k for k in range(len(shape)) if not (block == np.take(block, [0], axis=k)).all()]
        if not varying:
            return []
        block = np.moveaxis(block, varying, range(len(varying)))
        block = block.reshape([shape[k] for k in varying] + [-1])[..., 0]
        if len(varying) == 1:
            return [(varying[0], block.copy())]
        roles = ["heads"] + [""] * (len(varying) - 2) + ["head features"]
        parts = [self.cells.fresh(shape[k], ROLES.index(r)) for k, r in zip(varying, roles, strict=True)]
        grid = np.meshgrid(*parts, indexing="ij")
        self.cells.refine(block.ravel(), [g.ravel() for g in grid])
        return list(zip(varying, parts, strict=True))

    def give_up(self, call: Call) -> None:
        """Freeze everything that an operation without a rule touches."""
        self.opaque[call.name] += 1
        for tensor in call.tensors:
            self.freeze_tensor(tensor, f"passes through `{call.name}`, which has no rule")
        for tensor in call.outputs:
            self.put_fixed(tensor)


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Return the smallest runs of old and new axes with equal products, in order."""
    i = j = 0
    blocks = []
    while i < len(old) or j < len(new):
        before, after = list(range(i, min(i + 1, len(old)))), list(range(j, min(j + 1, len(new))))
        i, j = i + len(before), j + len(after)
        while math.prod(old[k] for k in before) != math.prod(new[k] for k in after):
            if math.prod(old[k] for k in before) < math.prod(new[k] for k in after):
                before, i = [*before, i], i + 1
            else:
                after, j = [*after, j], j + 1
        blocks.append((before, after))
    return blocks


def _merge(axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
    """Return the vectors of row-major merged axes."""
    total, outer, merged = math.prod(sizes), 1, []
    for axis, size in zip(axes, sizes, strict=True):
        inner = total // (outer * size)
        merged += [np.tile(np.repeat(vector, inner), outer) for vector in axis]
        outer *= size
    return merged


def place(dim: int, rank: int) -> int:
    """Return a dimension counted from the front."""
    return int(dim) % rank if rank else 0


def fixed(size: int) -> Vector:
    """Return a vector of indices that cannot go."""
    return np.full(size, FIXED)


def free(size: int) -> Vector:
    """Return a vector that constrains nothing."""
    return np.full(size, FREE)


def is_float(tensor: Tensor) -> bool:
    """Whether the tensor holds real or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()
