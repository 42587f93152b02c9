"""Views: operations that only move data."""

import numpy as np
from torch import Tensor

from tersor.graph.cells import Axis
from tersor.graph.labels import Call, Labels, place
from tersor.graph.rules.registry import rule


@rule(
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "unsqueeze",
    "squeeze",
    "flatten",
    "unflatten",
    "_reshape_copy",
    "view_copy",
)
def reshape(labels: Labels, call: Call) -> None:
    """Merge and split axes in row-major order."""
    source, out = call["self"], call.out
    if source.dtype != out.dtype:
        labels.give_up(call)
        return
    literal = labels.literal if labels.literal and len(labels.literal) == out.dim() else None
    axes, shape = labels.last(source)
    labels.put(out, labels.reshape(axes, shape, list(out.shape), literal))


@rule("t", "transpose", "permute", "movedim", "numpy_T", "adjoint")
def permute(labels: Labels, call: Call) -> None:
    """Reorder the axes."""
    source = call["self"]
    order = list(range(source.dim()))
    if call.name.startswith("permute"):
        order = [place(d, source.dim()) for d in call["dims"]]
    elif call.name.startswith("transpose"):
        i, j = place(call["dim0"], source.dim()), place(call["dim1"], source.dim())
        order[i], order[j] = order[j], order[i]
    else:
        order.reverse()
    axes, _ = labels.last(source)
    labels.put(call.out, [axes[i] for i in order])


@rule("expand", "repeat")
def expand(labels: Labels, call: Call) -> None:
    """Give an axis that had one index new cells, its copies; repeat others end to end."""
    source, out = call["self"], call.out
    axes, offset = labels.of(source), out.dim() - source.dim()
    result: list[Axis] = []
    for axis in range(out.dim()):
        own = axis - offset
        if own >= 0 and source.shape[own] == out.shape[axis]:
            result.append(axes[own])
        elif own < 0 or source.shape[own] == 1:
            literal = labels.literal is not None and len(labels.literal) == out.dim() and labels.literal[axis]
            result.append([] if literal else labels.fresh(out.shape[axis], "heads per kv group"))
        else:
            times = int(out.shape[axis]) // int(source.shape[own])
            result.append([np.tile(vector, times) for vector in axes[own]])
    labels.put(out, result)


@rule("slice")
def slice_(labels: Labels, call: Call) -> None:
    """Take the vectors of the indices; with a step, whole blocks of a step go together."""
    source, dim = call["self"], place(call["dim"], call["self"].dim())
    size, step = int(source.shape[dim]), int(call["step"])
    axes = labels.of(source)
    if step > 1:
        _couple_blocks(labels, axes[dim], size, step, call)
        axes = labels.of(source)
    index = np.arange(size)[_bound(call["start"]) : _bound(call["end"]) : step]
    axes[dim] = [vector[index] for vector in axes[dim]]
    labels.put(call.out, axes)


def _stride(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.stride(axis) for axis in range(tensor.dim()))


def _bound(value: object) -> int | None:
    return None if value is None else int(value)  # type: ignore[call-overload]  # schema: int or None


def _couple_blocks(labels: Labels, axis: Axis, size: int, step: int, call: Call) -> None:
    start, end = _bound(call["start"]) or 0, _bound(call["end"])
    whole = size % step == 0 and 0 <= start < step and (end is None or end >= size)
    if not whole:
        labels.freeze(axis, "is sliced with a step")
        return
    if axis:
        first = [np.repeat(vector.reshape(-1, step)[:, 0], step) for vector in axis]
        labels.unify(axis, first, "is sliced with a step")


@rule("select")
def select(labels: Labels, call: Call) -> None:
    """Drop the axis, whose indices the user's code counts."""
    dim, axes = place(call["dim"], call["self"].dim()), labels.of(call["self"])
    labels.freeze(axes[dim], "is selected from by position")
    axes = labels.of(call["self"])
    labels.put(call.out, axes[:dim] + axes[dim + 1 :])


@rule("unbind")
def unbind(labels: Labels, call: Call) -> None:
    """Drop the axis for every piece."""
    dim, axes = place(call["dim"], call["self"].dim()), labels.of(call["self"])
    labels.freeze(axes[dim], "is unbound")
    for out in call.outputs:
        labels.put(out, axes[:dim] + axes[dim + 1 :])


@rule(
    "split",
    "split_with_sizes",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "chunk",
    "unsafe_chunk",
    "split_with_sizes_copy",
)
def split(labels: Labels, call: Call) -> None:
    """Give every piece the vectors of its indices."""
    dim, start = place(call["dim"], call["self"].dim()), 0
    for out in call.outputs:
        axes = labels.of(call["self"])
        stop = start + int(out.shape[dim])
        axes[dim] = [vector[start:stop] for vector in axes[dim]]
        labels.put(out, axes)
        start = stop


@rule("as_strided", "as_strided_")
def as_strided(labels: Labels, call: Call) -> None:
    """Pass the axes whose size and stride only one axis of the source has; windows cannot change."""
    source, out = call["self"], call.out
    axes, shape = labels.last(source)
    seen = list(zip(shape, labels.stride(source), strict=True))
    wanted = list(zip(tuple(out.shape), _stride(out), strict=True))
    alike = [own for own in seen if own[0] > 1 and seen.count(own) == 1 and wanted.count(own) == 1]
    for axis, own in zip(axes, seen, strict=True):
        if own not in alike:
            labels.freeze(axis, "is read through a window")
    labels.put(out, [axes[seen.index(own)] if own in alike else [] for own in wanted])


@rule("view_as_real", "view_as_complex")
def complex_view(labels: Labels, call: Call) -> None:
    """Add or drop the last axis of size two."""
    axes = labels.of(call["self"])
    if call.name == "view_as_real":
        labels.put(call.out, [*axes, []])
        return
    labels.freeze(axes[-1], "is the real and imaginary part")
    labels.put(call.out, axes[:-1])


@rule("diagonal")
def diagonal(labels: Labels, call: Call) -> None:
    """Freeze the two axes of the diagonal."""
    source = call["self"]
    axes = labels.of(source)
    gone = {place(call["dim1"], source.dim()), place(call["dim2"], source.dim())}
    for dim in gone:
        labels.freeze(axes[dim], "is on a diagonal")
    labels.put(call.out, [axis for i, axis in enumerate(axes) if i not in gone] + [[]])
