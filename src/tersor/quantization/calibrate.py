"""Place grids: weights on their own values, activations on what calibration data shows."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, fx
from torch.nn.functional import pad

from tersor.errors import DataError
from tersor.loading.inputs import Inputs, as_inputs, call, flatten
from tersor.quantization.capture import get_tensor
from tersor.quantization.fake_quantize import FakeQuantize
from tersor.quantization.grid import QSpec, place
from tersor.quantization.insert import bias_calls, parameter_of, quantizer_calls
from tersor.quantization.observer import Observer, Samples
from tersor.quantization.ranges.registry import RangeRule


def check_calibration(calibration: Iterable[Inputs | Tensor], inputs: Inputs) -> list[Inputs]:
    """Return the calibration batches as a list of what the model is called with.

    Args:
        calibration: batches.
        inputs: example inputs, which the batches must resemble.

    Raises:
        DataError: if there is no batch, or one holds NaN or infinity, or has other arguments than `inputs`.
    """
    batches = [as_inputs(batch) for batch in calibration]
    if not batches:
        raise DataError(
            "The calibration data is empty. Pass at least one batch of inputs; 100 to 500 samples are usual."
        )
    for number, batch in enumerate(batches):
        if _form(batch) != _form(inputs):
            raise DataError(
                f"Calibration batch {number} has {_words(batch)}, the example inputs have {_words(inputs)}. Pass what "
                "the model is called with, without labels."
            )
        for tensor in flatten(batch):
            if not tensor.numel():
                raise DataError(f"Calibration batch {number} holds no sample. Drop it.")
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise DataError(
                    f"Calibration batch {number} holds NaN or infinity. Clean it, or drop the batch."
                )
    return batches


def _form(inputs: Inputs) -> list[tuple[object, int]]:
    """Return the name or place of each tensor and its number of axes."""
    items = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    return sorted((str(key), value.dim()) for key, value in items if isinstance(value, Tensor))


def _words(inputs: Inputs) -> str:
    items = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    found = [f"{key}: {tuple(value.shape)}" for key, value in items if isinstance(value, Tensor)]
    return f"the tensors ({', '.join(found)})" if found else "no tensor"


def set_weight_grids(graph_module: fx.GraphModule, rule: RangeRule) -> None:
    """Place the grid of every weight quantizer on the weight itself."""
    for node, quantizer in quantizer_calls(graph_module):
        if name := parameter_of(node):
            fit_weight(quantizer, get_tensor(graph_module, name), rule)


@torch.no_grad()
def fit_weight(quantizer: FakeQuantize, weight: Tensor, rule: RangeRule) -> None:
    """Place the grid of `quantizer` on `weight`, row by row."""
    lo, hi = rule(Samples.of(rows_of(weight.detach().float(), quantizer.spec)), quantizer.spec)
    step, zero = place(lo, hi, quantizer.spec)
    if quantizer.spec.block:
        step, zero = step.reshape(len(weight), -1), zero.reshape(len(weight), -1)
    quantizer.set_grid(step, zero)


def rows_of(weight: Tensor, spec: QSpec) -> Tensor:
    """Return `weight` as a matrix with one row for each step; blocks need their axis to be the last."""
    assert spec.axis is not None, "weights have a step per channel or per block"
    if not spec.block:
        return weight.movedim(spec.axis, 0).flatten(1)
    return pad(weight, (0, -weight.shape[-1] % spec.block)).reshape(-1, spec.block)


@torch.no_grad()
def set_activation_grids(graph_module: fx.GraphModule, batches: Sequence[Inputs], rule: RangeRule) -> None:
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


def _look(graph_module: fx.GraphModule, batches: Sequence[Inputs]) -> None:
    for batch in batches:
        call(graph_module, batch)
