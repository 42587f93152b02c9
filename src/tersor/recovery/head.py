"""The layer that answers: found, made anew for other classes, trained by itself first."""

import copy

import torch
from torch import nn

from tersor._check import positive
from tersor.errors import DataError, ModelError
from tersor.loading.binding import make_binding
from tersor.loading.data import load_data
from tersor.loading.inputs import Inputs, as_inputs, call, example, main_output
from tersor.loading.survey import walk
from tersor.loading.task import Batch
from tersor.recovery.norms import evaluating, on_device
from tersor.recovery.taps import execution_order

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def head_of(model: nn.Module, inputs: object) -> str:
    """Return the name of the last linear layer (or convolution) of a forward pass.

    Args:
        model: any module.
        inputs: example inputs.

    Raises:
        ModelError: if no such layer runs once.

    Example:
        >>> head_of(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 4))
        '2'
    """
    wanted = [name for name, module in model.named_modules() if isinstance(module, _LAYERS)]
    with evaluating(model):
        order = execution_order(model, Batch(as_inputs(inputs), None, ()), wanted)
    if not order:
        raise ModelError(
            f"{type(model).__name__} runs no linear layer or convolution exactly once, so it has no head to replace. "
            "Build it with the number of classes you want."
        )
    return order[-1]


def new_head(model: nn.Module, inputs: object, classes: int, *, seed: int = 0) -> nn.Module:
    """Return a copy of `model` whose last layer is new: fresh weights, and `classes` outputs.

    Args:
        model: a trained network; not changed.
        inputs: example inputs.
        classes: number of outputs.
        seed: of the fresh weights.

    Raises:
        ArgumentError: if `classes` is not positive.
        ModelError: if there is no last layer, or other layers fix the number of outputs.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 10))
        >>> new_head(net, torch.zeros(1, 4), classes=3)[2]
        Linear(in_features=8, out_features=3, bias=True)
    """
    name = head_of(model, inputs)
    changed = with_outputs(model, name, classes, seed=seed)
    with evaluating(changed):
        outputs = main_output(call(changed, on_device(changed, as_inputs(inputs))))
    if classes not in outputs.shape[1:]:
        raise ModelError(
            f"With {classes} outputs in {name!r} the model still gives {tuple(outputs.shape)}, so {name!r} is not its "
            "head. Build it with the number of classes you want."
        )
    return changed


def with_outputs(model: nn.Module, layer: str, outputs: int, *, seed: int = 0) -> nn.Module:
    """Return a copy of `model` in which `layer`, linear or a convolution, is new and has `outputs` outputs.

    Args:
        model: not changed.
        layer: name of the layer.
        outputs: of the new layer.
        seed: of its weights.

    Raises:
        ArgumentError: if `outputs` is not positive.

    Example:
        >>> with_outputs(nn.Sequential(nn.Linear(4, 10)), "0", 3)
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
        )
    """
    positive("classes", outputs)
    changed = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        old = changed.get_submodule(layer)
        changed.set_submodule(layer, _like(old, outputs).to(next(old.parameters())))
    return changed


def first_inputs(model: nn.Module, data: object) -> Inputs:
    """Return two samples of `data` as inputs of `model`, before the data is looked at as a whole.

    Args:
        model: any module.
        data: as for `tersor.optimize`.

    Raises:
        DataError: if the data cannot be read or bound to the model, or is empty.

    Example:
        >>> first_inputs(nn.Linear(2, 3), (torch.zeros(9, 2), torch.zeros(9).long()))[0].shape
        torch.Size([2, 2])
    """
    batch = next((b for source in load_data(data).values() for b in walk(source)), None)
    if batch is None:
        raise DataError("The data is empty. Check the path, the filter or the slice that makes it.")
    inputs, _ = make_binding(model, batch).bind(batch)
    return example(inputs, 2)


def _like(layer: nn.Module, outputs: int) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs, bias=layer.bias is not None)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    return type(layer)(
        layer.in_channels,
        outputs,
        layer.kernel_size,  # pyright: ignore[reportArgumentType] - a tuple of the layer's own class
        layer.stride,  # pyright: ignore[reportArgumentType] - likewise
        layer.padding,  # pyright: ignore[reportArgumentType] - likewise
        bias=layer.bias is not None,
    )
