"""Convolutions of any rank: plain, depthwise, grouped and transposed."""

from tersor.graph.cells import Axis
from tersor.graph.labels import ROLES, Call, Labels
from tersor.graph.rules.registry import rule

MEETS = "is convolved with an axis that cannot change"


@rule("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution", "convolution_overrideable")
def convolution(labels: Labels, call: Call) -> None:
    """Channels in unify with the weight; channels out come from it; space and kernel stay."""
    source, weight, bias = call["input"], call["weight"], call["bias"]
    for axis in labels.of(weight)[2:]:
        labels.freeze(axis, "is the kernel of a convolution")
    for axis in labels.of(source)[2:]:
        labels.freeze(axis, "is the space of a convolution")
    groups, transposed = int(call["groups"]), bool(call["transposed"])
    if groups == 1:
        labels.contract(labels.of(source)[1], labels.of(weight)[0 if transposed else 1], MEETS)
        channels = labels.of(weight)[1 if transposed else 0]
    else:
        channels = _grouped(labels, call, groups, transposed)
    labels.mark(channels, "channels")
    labels.put(call.out, [labels.of(source)[0], channels, *([] for _ in range(call.out.dim() - 2))])
    if bias is not None:
        labels.unify(labels.of(call.out)[1], labels.of(bias)[0], MEETS)


def _grouped(labels: Labels, call: Call, groups: int, transposed: bool) -> Axis:
    """Split channels into (group, channel in it) on both sides, and unify both parts."""
    source, weight, out = call["input"], call["weight"], call.out
    per_in, per_out = int(source.shape[1]) // groups, int(out.shape[1]) // groups
    inside = _factors(labels, labels.of(source)[1], groups, per_in)
    rows = _factors(labels, labels.of(weight)[0], groups, per_in if transposed else per_out)
    labels.unify(inside[0], rows[0], MEETS)
    if transposed:
        labels.contract(inside[1], rows[1], MEETS)
        outside = _joined(labels, rows[0], labels.of(weight)[1], groups, per_out)
    else:
        labels.contract(inside[1], labels.of(weight)[1], MEETS)
        outside = labels.of(weight)[0]
    labels.factors[id(out)] = rows[0]
    return outside


def _factors(labels: Labels, axis: Axis, groups: int, each: int) -> list[Axis]:
    """Return the axis of the groups and that of the channels in each."""
    split = labels.reshape([axis], [groups * each], [groups, each])
    if each > 1:
        _rename(labels, split[0], "conv groups")
        _rename(labels, split[1], "group channels")
    return split


def _rename(labels: Labels, axis: Axis, role: str) -> None:
    heads = (ROLES.index("heads"), ROLES.index("head features"))
    for vector in labels.cells.resolve(axis):
        cells = vector[vector >= 0]
        plain = cells[[int(labels.cells.role[c]) in heads for c in cells]]
        labels.cells.role[plain] = ROLES.index(role)


def _joined(labels: Labels, outer: Axis, inner: Axis, groups: int, each: int) -> Axis:
    return labels.reshape([outer, inner], [groups, each], [groups * each])[0]
