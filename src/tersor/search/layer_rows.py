"""What was done to each layer, and why, as rows of a report."""

from collections.abc import Sequence

from torch import nn

from tersor.loading.onnx.graph_model import GraphModel
from tersor.planning.plan import Drop, Factorize, Plan, Quantize
from tersor.quantization.model import QuantizedModel
from tersor.reporting.record import Layer
from tersor.reporting.words import share
from tersor.search.candidate import Candidate
from tersor.search.insight import Insight
from tersor.search.sensitivity import PRUNED


def layer_rows(original: nn.Module, answer: Candidate, insight: Insight) -> tuple[Layer, ...]:
    """Return what was done to each layer that has a weight, in the order of the network, and why."""
    assert answer.model is not None
    if isinstance(original, GraphModel):
        return _of_graph(original, answer)
    after = _shapes(answer)
    rows = []
    for name, module in original.named_modules():
        weight = module._parameters.get("weight")
        if weight is None or weight.dim() < 2:
            continue
        shape = tuple(weight.shape)
        left = after.get(name, shape)
        changes = [f"{1 - _count(left) / _count(shape):.0%} of the weights cut"] if left != shape else []
        changes += _edits_of(answer.plan, name)
        rows.append(
            Layer(
                name=name,
                kind=type(module).__name__,
                change=", ".join(changes),
                before=_written(shape),
                after=_written(left),
                reason=_reason(name, answer, insight, cut=bool(changes)),
                sensitivity=insight.sensitivity.get(name, {}),
            )
        )
    return tuple(rows)


def _of_graph(original: GraphModel, answer: Candidate) -> tuple[Layer, ...]:
    rounded = {edit.site: edit for edit in answer.plan.of(Quantize)}
    return tuple(
        Layer(
            name=name,
            kind=kind,
            change=f"{rounded[name].weight_bits}-bit integers" if name in rounded else "",
            before=_written(shape),
            after=_written(shape),
            reason="" if name in rounded else "as it was",
            sensitivity={},
        )
        for name, (kind, shape) in original.layers.items()
    )


def _edits_of(plan: Plan, layer: str) -> list[str]:
    """Return what a plan does to one layer besides cutting, in words."""
    words = [f"product of rank {edit.rank}" for edit in plan.of(Factorize) if edit.layer == layer]
    words += ["dropped with its block" for edit in plan.of(Drop) if f"{layer}.".startswith(f"{edit.block}.")]
    return words + [f"{edit.weight_bits}-bit integers" for edit in plan.of(Quantize) if edit.site == layer]


def _reason(layer: str, answer: Candidate, insight: Insight, *, cut: bool) -> str:
    """Return why a layer was changed, or could not be."""
    floats = answer.model.floats if isinstance(answer.model, QuantizedModel) else {}
    if layer in floats:
        return f"in floating point: {floats[layer]}"
    noise = insight.sensitivity.get(layer, {}).get(PRUNED)
    measured = (
        ""
        if noise is None
        else f"without half of its units alone, the outputs change by {share(noise)} of their energy"
    )
    if cut:
        return measured
    frozen = insight.reasons.get(layer, "")
    if frozen:
        return f"cannot be cut: it {frozen}"
    return measured and f"kept whole: {measured}"


def _shapes(answer: Candidate) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights of the answer by layer; integer models keep the names of their weights."""
    assert answer.model is not None
    if answer.float_model is not None:
        named = answer.float_model.named_parameters()
    else:
        named = answer.model.named_parameters()
    return {name.removesuffix(".weight"): tuple(p.shape) for name, p in named if name.endswith(".weight")}


def _count(shape: Sequence[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _written(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
