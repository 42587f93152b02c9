"""Looking up and writing by index: the indexed axis stays, the others pass."""

import torch
from torch import Tensor

from tersor.graph.cells import Axis
from tersor.graph.labels import Call, Labels, place
from tersor.graph.rules.registry import rule


@rule("embedding")
def embedding(labels: Labels, call: Call) -> None:
    """Rows are looked up, columns come out."""
    weight, index = call["weight"], call["indices"]
    labels.freeze(labels.of(weight)[0], "is a vocabulary")
    labels.put(call.out, [*labels.of(index), labels.of(weight)[1]])


@rule("index", "_unsafe_index")
def index(labels: Labels, call: Call) -> None:
    """Freeze the indexed axes; the axes of the indices take their place."""
    source, out = call["self"], call.out
    axes, used = _indexed(labels, source, call["indices"])
    new = _index_axes(labels, [i for i in call["indices"] if i is not None])
    adjacent = used == list(range(used[0], used[-1] + 1))
    first = used[0] if adjacent else 0
    rest = [axis for i, axis in enumerate(axes) if i not in used]
    result = [*rest[:first], *new, *rest[first:]]
    labels.put(out, result) if len(result) == out.dim() else _give_up(labels, source, out)


def _indexed(labels: Labels, source: Tensor, indices: list[Tensor | None]) -> tuple[list[Axis], list[int]]:
    """Freeze the axes that the indices consume; return all axes, and which were consumed."""
    used, axis = [], 0
    for item in indices:
        width = item.dim() if item is not None and item.dtype in (torch.bool, torch.uint8) else 1
        if item is not None:
            used += list(range(axis, axis + width))
        axis += width
    axes = labels.of(source)
    for position in used:
        labels.freeze(axes[position], "is looked up by index")
    return axes, used


def _index_axes(labels: Labels, indices: list[Tensor]) -> list[Axis]:
    """Return the axes of the result of broadcasting the indices."""
    if any(item.dtype in (torch.bool, torch.uint8) for item in indices):
        return [[]]
    shape = torch.broadcast_shapes(*[tuple(item.shape) for item in indices])
    return labels.broadcast(indices, torch.empty(shape, device="meta"), "is an index")


def _give_up(labels: Labels, source: Tensor, out: Tensor) -> None:
    labels.freeze_tensor(source, "is looked up by index")
    labels.put_fixed(out)


@rule("index_select")
def index_select(labels: Labels, call: Call) -> None:
    """Freeze the axis; the others pass."""
    dim, axes = place(call["dim"], call["self"].dim()), labels.of(call["self"])
    labels.freeze(axes[dim], "is looked up by index")
    axes[dim] = []
    labels.put(call.out, axes)


@rule("index_put", "index_put_", "_index_put_impl_")
def index_put(labels: Labels, call: Call) -> None:
    """Freeze the indexed axes of the destination; the others unify with the values."""
    target, values = call["self"], call["values"]
    axes, used = _indexed(labels, target, call["indices"])
    rest = [i for i in range(target.dim()) if i not in used]
    lead = used == list(range(len(used)))
    for back, axis in enumerate(reversed(rest), 1):
        if not lead or back > values.dim():
            labels.freeze(axes[axis], "is written by index") if back <= values.dim() else None
        elif values.shape[-back] != 1:
            labels.unify(axes[axis], labels.of(values)[-back], "is written by index")
    for axis in labels.of(values)[: max(values.dim() - len(rest), 0)]:
        labels.freeze(axis, "is written by index")
    if not lead:
        labels.freeze_tensor(values, "is written by index")
    labels.put(call.out, labels.of(target))


@rule("gather", "scatter", "scatter_add", "scatter_reduce", "take_along_dim", "_scatter_reduce")
def gather(labels: Labels, call: Call) -> None:
    """Freeze the indexed axis; the others unify where they are of one size."""
    source, dim = call["self"], place(call["dim"], call["self"].dim())
    parts = [t for t in (source, call.get("index"), call.get("src")) if isinstance(t, Tensor) and t.dim()]
    result: list[Axis] = []
    for axis in range(source.dim()):
        even = len({int(t.shape[axis]) for t in parts}) == 1 and axis != dim
        met = [labels.of(t)[axis] for t in parts]
        if not even:
            for one in met:
                labels.freeze(one, "is gathered by index")
        result.append(labels.unify_all(met, "is gathered by index") if even else [])
    labels.put(call.out, result if call.out.dim() == source.dim() else [[] for _ in call.out.shape])


@rule("index_add", "index_copy", "index_fill", "index_reduce")
def index_add(labels: Labels, call: Call) -> None:
    """Freeze the axis that is added along; the others unify with the source."""
    target, dim, source = call["self"], place(call["dim"], call["self"].dim()), call.get("source")
    axes = labels.of(target)
    labels.freeze(axes[dim], "is written by index")
    if isinstance(source, Tensor) and source.dim() == target.dim():
        labels.freeze(labels.of(source)[dim], "is written by index")
        for axis in range(target.dim()):
            if axis != dim:
                labels.unify(axes[axis], labels.of(source)[axis], "is written by index")
    labels.put(call.out, labels.of(target))


@rule("roll", "flip")
def roll(labels: Labels, call: Call) -> None:
    """Freeze the axes whose order changes."""
    source = call["self"]
    axes = labels.of(source)
    for dim in call["dims"] or range(source.dim()):
        labels.freeze(axes[place(dim, source.dim())], f"is moved by `{call.name}`")
    labels.put(call.out, labels.of(source))


@rule(
    "nonzero",
    "masked_select",
    "bincount",
    "histc",
    "_unique2",
    "bucketize",
    "searchsorted",
    "one_hot",
    "multinomial",
    "nonzero_numpy",
    "isin",
    "masked_scatter",
    "nonzero_static",
    "unique_dim_consecutive",
    "_unique",
)
def fixed(labels: Labels, call: Call) -> None:
    """The result depends on positions: nothing touched can change."""
    if call.name.startswith("masked_scatter"):
        _masked_scatter(labels, call)
        return
    for tensor in call.tensors:
        labels.freeze_tensor(tensor, f"is read by `{call.name}`")
    for out in call.outputs:
        labels.put_fixed(out)


def _masked_scatter(labels: Labels, call: Call) -> None:
    """Rows are taken from the source in order: its last axis passes where the mask is constant along it."""
    target, source = call["self"], call["source"]
    same = source.dim() and source.shape[-1] == target.shape[-1]
    for tensor in call.tensors:
        for axis in labels.of(tensor)[: -1 if same else None]:
            labels.freeze(axis, "is scattered by a mask")
    if same:
        labels.unify(labels.of(target)[-1], labels.of(source)[-1], "is scattered by a mask")
    labels.put(call.out, labels.of(target))
