"""Reductions and statistics along axes."""

from torch import Tensor

from tersor.graph.labels import Call, Labels, place
from tersor.graph.rules.registry import rule


def _reduced(call: Call, rank: int) -> list[int]:
    dims = call.get("dim") if "dim" in call.args else call.get("dims")
    if dims is None or (isinstance(dims, tuple | list) and not len(dims)):
        return list(range(rank))
    dims = dims if isinstance(dims, tuple | list) else [dims]
    return [place(d, rank) for d in dims]


def _reduce(labels: Labels, call: Call, source: Tensor) -> None:
    axes, dims = labels.of(source), _reduced(call, source.dim())
    for out in call.outputs:
        keeps = out.dim() == source.dim() and source.dim() > 0
        kept = [[] if i in dims else axis for i, axis in enumerate(axes)] if keeps else None
        labels.put(out, kept or [axis for i, axis in enumerate(axes) if i not in dims])


@rule("sum", "count_nonzero", "nansum")
def total(labels: Labels, call: Call) -> None:
    """Drop the axes; removed units add nothing."""
    _reduce(labels, call, call["self"])


@rule(
    "mean", "amax", "amin", "var", "std", "logsumexp", "linalg_vector_norm", "norm", "var_mean", "std_mean", "aminmax",
    "nanmean", "prod", "all", "any",
    statistic=True,
)  # fmt: skip
def statistic(labels: Labels, call: Call) -> None:
    """Drop the axes; the statistic is over kept units."""
    _reduce(labels, call, call["self"] if "self" in call.args else call.tensors[0])


@rule("max", "min", "argmax", "argmin", "median", "mode", "kthvalue")
def positional(labels: Labels, call: Call) -> None:
    """A result that may name positions: the axis cannot change."""
    source = call["self"]
    if isinstance(call.get("other"), Tensor):
        labels.put(call.out, labels.broadcast([source, call["other"]], call.out, "is compared"))
        return
    for dim in _reduced(call, source.dim()):
        labels.freeze(labels.of(source)[dim], f"is searched by `{call.name}`")
    _reduce(labels, call, source)


@rule("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax", statistic=True)
def softmax(labels: Labels, call: Call) -> None:
    """Keep the axes; the normalisation is over kept units."""
    labels.put(call.out, labels.of(call["self"]))


@rule(
    "cumsum",
    "cumprod",
    "sort",
    "topk",
    "argsort",
    "logcumsumexp",
    "cummax",
    "cummin",
    "_cummax_helper",
    "renorm",
    "unique_dim",
    "unique_consecutive",
)
def ordered(labels: Labels, call: Call) -> None:
    """The order along the axis matters: it cannot change."""
    source = call["self"]
    dim = place(call["dim"] if call.get("dim") is not None else -1, source.dim())
    labels.freeze(labels.of(source)[dim] if source.dim() else [], f"is put in order by `{call.name}`")
    axes = labels.of(source)
    if source.dim():
        axes[dim] = []
    for out in call.outputs:
        labels.put(out, axes) if out.dim() == source.dim() else labels.put_fixed(out)
