"""From a trained model and calibration data to a model that computes on integer grids."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from tersor.errors import ArgumentError, DataError, PlanError
from tersor.loading.inputs import Inputs, call, flatten
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.capture import capture, get_tensor
from tersor.quantization.fake_quantize import FakeQuantize
from tersor.quantization.grid import place
from tersor.quantization.hardware import Scheme, detect, scheme_for
from tersor.quantization.insert import bias_calls, insert, parameter_of, quantizer_calls
from tersor.quantization.observer import Observer, Samples
from tersor.quantization.placement import ONNXRUNTIME_CPU, Layout, candidates, lay_out
from tersor.quantization.ranges.registry import RangeRule, range_rule


class QuantizedModel(nn.Module):
    """A model that evaluates and trains with the arithmetic of its integer file.

    Attributes:
        graph_module: the graph, with a FakeQuantize on every edge that carries integers.
        scheme: the codes, and why these.
        integers: names of the sites that run in integers.
        floats: names of the sites that stay in floating point, with the reason.
    """

    def __init__(self, graph_module: fx.GraphModule, scheme: Scheme, layout: Layout) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.scheme = scheme
        self.integers: tuple[str, ...] = tuple(dict.fromkeys(layout.weighted.values()))
        self.floats: Mapping[str, str] = dict(layout.floats)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model, called as the original is."""
        return self.graph_module(*args, **kwargs)


def sites(model: nn.Module, inputs: Inputs) -> tuple[str, ...]:
    """Return the names of the layers of `model` that can run in integers, in the order of execution.

    Example:
        >>> sites(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (torch.randn(2, 4),))
        ('0', '2')
    """
    return tuple(dict.fromkeys(candidates(capture(model, inputs).graph, ONNXRUNTIME_CPU).values()))


def quantize(
    model: nn.Module,
    inputs: Inputs,
    calibration: Iterable[Inputs],
    *,
    scheme: Scheme | str = "auto",
    plan: Plan | None = None,
    ranges: str = "mse",
) -> QuantizedModel:
    """Return a new model that computes on the integer grids that a runtime will compute on.

    Weights are rounded to `step * codes` with a step per output channel, activations with a step per tensor that
    comes from calibration. The result trains: its steps are parameters.

    Args:
        model: the trained model; not changed.
        inputs: example inputs, as the model is called.
        calibration: batches of inputs, unlabelled; a few hundred samples are enough.
        scheme: a `Scheme`, its kind (`static`, `dynamic`), or `auto`: the codes this processor multiplies exactly.
        plan: which sites run in integers, by `Quantize` edits; all of them when None.
        ranges: name of the rule in `RANGES` that turns observed values into a range.

    Returns:
        The quantized model, on the CPU's or the model's device, in evaluation mode.

    Raises:
        ModelError: if `torch.export` does not accept the model.
        DataError: if the calibration data is empty or not finite.
        PlanError: if the plan names a site that the model does not have.

    Example:
        >>> model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(64, 4)
        >>> small = quantize(model, (x[:2],), [(x,)])
        >>> small.integers, small(x).shape
        (('0', '2'), torch.Size([64, 2]))

    Source: Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, arXiv 1806.08342.
    """
    rule = range_rule(ranges)
    chosen = (
        scheme_for(detect(), "static" if scheme == "auto" else scheme) if isinstance(scheme, str) else scheme
    )
    graph_module = capture(model, inputs)
    batches = check_calibration(calibration)
    edits = _edits(graph_module.graph, plan)
    layout = lay_out(graph_module.graph, ONNXRUNTIME_CPU, _floats(graph_module.graph, edits))
    codes = {site: chosen.weight_codes(edits[site].weight_bits) for site in layout.weighted.values()}
    insert(graph_module, layout, activation=chosen.activation, weights=codes)
    set_weight_grids(graph_module, rule)
    set_activation_grids(graph_module, batches, rule)
    return QuantizedModel(graph_module, chosen, layout).eval()


def check_calibration(calibration: Iterable[Inputs]) -> list[Inputs]:
    """Return the calibration batches as a list.

    Raises:
        DataError: if there is no batch, or one holds NaN or infinity.
    """
    batches = list(calibration)
    if not batches:
        raise DataError(
            "The calibration data is empty. Pass at least one batch of inputs; 100 to 500 samples are usual."
        )
    for number, batch in enumerate(batches):
        for tensor in flatten(batch):
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise DataError(
                    f"Calibration batch {number} holds NaN or infinity. Clean it, or drop the batch."
                )
    return batches


def _edits(graph: fx.Graph, plan: Plan | None) -> dict[str, Quantize]:
    names = tuple(dict.fromkeys(candidates(graph, ONNXRUNTIME_CPU).values()))
    if not names:
        raise ArgumentError(
            "No convolution or linear layer with a weight of its own: there is nothing to quantize."
        )
    if plan is None:
        return {name: Quantize(name) for name in names}
    edits = {edit.site: edit for edit in plan.of(Quantize)}
    if unknown := sorted(set(edits) - set(names)):
        raise PlanError(
            f"The model has no site {unknown[0]!r}. `sites` gives them: {', '.join(names[:8])}, ..."
        )
    if not edits:
        raise PlanError(
            "The plan has no Quantize edit, so nothing would change. Pass plan=None to quantize every site."
        )
    return edits


def _floats(graph: fx.Graph, edits: Mapping[str, Quantize]) -> dict[str, str]:
    names = candidates(graph, ONNXRUNTIME_CPU).values()
    return {name: "the plan leaves it in floating point" for name in names if name not in edits}


def set_weight_grids(graph_module: fx.GraphModule, rule: RangeRule) -> None:
    """Place the grid of every weight quantizer on the weight itself."""
    for node, quantizer in quantizer_calls(graph_module):
        if name := parameter_of(node):
            fit_weight(quantizer, get_tensor(graph_module, name), rule)


@torch.no_grad()
def fit_weight(quantizer: FakeQuantize, weight: Tensor, rule: RangeRule) -> None:
    """Place the grid of `quantizer` on `weight`, row by row."""
    spec = quantizer.spec
    assert spec.axis is not None
    rows = weight.detach().float().movedim(spec.axis, 0).flatten(1)
    lo, hi = rule(Samples.of(rows), spec)
    quantizer.set_grid(*place(lo, hi, spec))


@torch.no_grad()
def set_activation_grids(graph_module: fx.GraphModule, batches: list[Inputs], rule: RangeRule) -> None:
    """Place the grid of every activation quantizer on what `batches` show, in two passes over them."""
    observed = {
        id(module): (node, module)
        for node, module in quantizer_calls(graph_module)
        if module.spec.axis is None and not module.spec.dynamic
    }
    if not observed:
        return
    for node, module in observed.values():
        module.observer = Observer(str(node.args[0]))
    _look(graph_module, batches)
    for _, module in observed.values():
        assert module.observer is not None
        module.observer.start_counting()
    _look(graph_module, batches)
    for _, module in observed.values():
        assert module.observer is not None
        samples, module.observer = module.observer.samples(), None
        lo, hi = rule(samples, module.spec)
        step, zero = place(lo[0], hi[0], module.spec)
        module.set_grid(step, zero)
    for node, bias in bias_calls(graph_module):
        bias.widen(get_tensor(graph_module, parameter_of(node) or ""))


def _look(graph_module: fx.GraphModule, batches: list[Inputs]) -> None:
    for batch in batches:
        call(graph_module, batch)
