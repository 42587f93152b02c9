"""From labels to a Graph: cells become units of groups, integers become equations over extents."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from tersor.graph.equations import Arithmetic
from tersor.graph.families import Units, families
from tersor.graph.integers import Attribute, Expression, Observed, leaves, read_attribute
from tersor.graph.labels import Labels, is_float
from tersor.graph.modes import Recorder, Step
from tersor.graph.naming import Context, describe
from tersor.graph.structure import Graph, Operation
from tersor.loading.inputs import Inputs, flatten


def assemble(
    labels: Labels, recorder: Recorder, found: Arithmetic, seen: Observed, tensors: dict[str, Tensor], inputs: Inputs,
    model: nn.Module,
) -> Graph:  # fmt: skip
    """Return the Graph of a traced pass."""
    axes = {
        (name, axis): vectors
        for name, tensor in tensors.items()
        if is_float(tensor)
        for axis, vectors in enumerate(labels.of(tensor))
    }
    batch = max(int(flatten(inputs)[0].shape[0]) if flatten(inputs) and flatten(inputs)[0].dim() else 1, 1)
    units = Units(labels.cells, families(labels.cells, axes))
    operations = _operations(recorder.steps, units, batch)
    equations, ties = units.arithmetic(found, seen)
    comparisons = units.comparisons(seen)
    modules = dict(model.named_modules())
    sides = [side for one in comparisons for side in (one.left, one.right)]
    attributes = _attributes([*(e.expression for e in equations), *sides], modules)
    extents = {
        key: units.extent(vectors, int(tensors[key[0]].shape[key[1]])) for key, vectors in axes.items()
    }
    parameters = {name: tensor.numel() for name, tensor in model.named_parameters()}
    groups, first = describe(Context(units, extents, tensors, modules, operations, frozenset(parameters)))
    return Graph(
        groups=groups,
        operations=operations,
        blocks=(blocks := _blocks(recorder, modules)),
        branches=_branches(recorder, modules, blocks),
        opaque=dict(labels.opaque),
        unused=tuple(n for n, _ in model.named_parameters() if id(tensors[n]) not in recorder.touched),
        extents=extents,
        sizes=parameters,
        equations=equations,
        ties=ties,
        comparisons=comparisons,
        attributes=attributes,
        first_unit=first,
        units=units.total,
    )


def _operations(steps: Sequence[Step], units: Units, batch: int) -> tuple[Operation, ...]:
    names: dict[str, int] = defaultdict(int)
    result = []
    for step in steps:
        base = f"{step.module}/{step.op}" if step.module else step.op
        names[base] += 1
        name = base if names[base] == 1 else f"{base}#{names[base]}"
        extents = tuple(
            units.extent(axis, size) for axis, size in zip(step.axes, step.sizes, strict=True) if axis
        )
        result.append(Operation(name, step.module, step.op, step.shape, step.macs // batch, extents))
    return tuple(result)


def _blocks(recorder: Recorder, modules: dict[str, nn.Module]) -> dict[str, int]:
    """Return the modules with parameters that add to their input, chains of such modules aside."""
    adds = [
        name
        for name, yes in recorder.streams.blocks.items()
        if yes and any(True for _ in modules[name].parameters())
    ]
    chained = nn.ModuleList | nn.Sequential | nn.ModuleDict
    links = [name for name in adds if isinstance(modules[name.rpartition(".")[0]], chained)]
    chains = {name for name in adds if any(link != name and _inside(link, name) for link in links)}
    return {
        name: recorder.streams.widths[name]
        for name in modules
        if name in adds and name not in chains and name
    }


def _branches(recorder: Recorder, modules: dict[str, nn.Module], blocks: dict[str, int]) -> dict[str, int]:
    """Return the modules that are added to a stream, where more hangs on them than one matrix."""
    found = recorder.streams.branches - set(blocks) - {""}
    return {
        name: recorder.streams.widths[name]
        for name in modules
        if name in found and sum(p.dim() > 1 for p in modules[name].parameters()) > 1
    }


def _inside(name: str, outer: str) -> bool:
    return not outer or name.startswith(f"{outer}.")


def _attributes(expressions: Iterable[Expression], modules: dict[str, nn.Module]) -> dict[Attribute, int]:
    found = {leaf for one in expressions for leaf in leaves(one) if isinstance(leaf, Attribute)}
    return {leaf: int(read_attribute(modules[leaf.module], leaf.path)) for leaf in sorted(found, key=str)}
