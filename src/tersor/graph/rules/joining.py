"""Joining tensors: cat and stack."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from tersor.graph.cells import FREE, Axis
from tersor.graph.labels import Call, Labels, fixed, place
from tersor.graph.rules.registry import rule


@rule("cat", "concat", "concatenate")
def cat(labels: Labels, call: Call) -> None:
    """Join the vectors along one axis, unify the other axes."""
    tensors = [t for t in call["tensors"] if not (t.dim() == 1 and t.numel() == 0)]
    out, dim = call.out, place(call["dim"], call.out.dim())
    result: list[Axis] = []
    for axis in range(out.dim()):
        if axis == dim:
            result.append([])
            continue
        result.append(
            labels.unify_all(
                [labels.of(t)[axis] for t in tensors], "meets an axis that cannot change in `cat`"
            )
        )
    result[dim] = join(labels, tensors, dim)
    labels.put(out, result)


def join(labels: Labels, tensors: Sequence[Tensor], dim: int) -> Axis:
    """Return the axis that several axes make end to end; those without cells are fixed."""
    columns = [(labels.of(t)[dim], int(t.shape[dim])) for t in tensors]
    depth = max((len(axis) for axis, _ in columns), default=0)
    return [np.concatenate([_entry(axis, size, level) for axis, size in columns]) for level in range(depth)]


def _entry(axis: Axis, size: int, level: int) -> np.ndarray:
    if level < len(axis):
        return axis[level]
    return np.full(size, FREE) if axis else fixed(size)


@rule("glu")
def glu(labels: Labels, call: Call) -> None:
    """The two halves of the axis share their cells."""
    source, dim = call["self"], place(call["dim"], call["self"].dim())
    half, axes = int(source.shape[dim]) // 2, labels.of(source)
    first, second = ([vector[part] for vector in axes[dim]] for part in (slice(0, half), slice(half, None)))
    common = labels.unify(first, second, "is gated by an axis that cannot change")
    labels.put(call.out, [common if i == dim else axis for i, axis in enumerate(labels.of(source))])


@rule("stack")
def stack(labels: Labels, call: Call) -> None:
    """Unify the operands; the new axis cannot change."""
    tensors, out = call["tensors"], call.out
    axes = labels.broadcast(tensors, tensors[0], "meets an axis that cannot change in `stack`")
    axes.insert(place(call["dim"], out.dim()), [])
    labels.put(out, axes)
