"""What a model is called with, and what it gives back, in one form for every room.

`Inputs` is a tuple of positional arguments or a dict of keyword arguments; the
first axis of every tensor in it is the batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from tersor.errors import ModelError

Inputs: TypeAlias = tuple[Any, ...] | dict[str, Any]

#: Names under which models that return several tensors give their main one.
_MAIN_OUTPUTS = ("logits", "last_hidden_state", "pred_boxes", "predicted_depth", "prediction_logits", "out")


def as_inputs(value: object) -> Inputs:
    """Return `value` as `Inputs`: a mapping stays named, a tuple or list positional, anything else one argument.

    Example:
        >>> as_inputs(torch.zeros(2))
        (tensor([0., 0.]),)
        >>> as_inputs({"x": 1})
        {'x': 1}
    """
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | list):
        return tuple(value)
    return (value,)


def call(model: nn.Module | Callable[..., Any], inputs: Inputs) -> Any:
    """Call `model` with `inputs`, named or positional."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def flatten(inputs: Inputs) -> tuple[Tensor, ...]:
    """Return the tensors of `inputs` in the order of the arguments.

    Example:
        >>> flatten({"a": torch.ones(1), "mask": None})
        (tensor([1.]),)
    """
    values = inputs.values() if isinstance(inputs, dict) else inputs
    return tuple(value for value in values if isinstance(value, Tensor))


def to_numpy(inputs: Inputs) -> tuple[np.ndarray, ...]:
    """Return the tensors of `inputs` as arrays, in the order of the arguments: what runtimes take."""
    return tuple(tensor.detach().cpu().numpy() for tensor in flatten(inputs))


def map_tensors(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """Return `inputs` with `function` applied to every tensor."""
    if isinstance(inputs, dict):
        return {k: function(v) if isinstance(v, Tensor) else v for k, v in inputs.items()}
    return tuple(function(v) if isinstance(v, Tensor) else v for v in inputs)


def main_output(outputs: object) -> Tensor:
    """Return the tensor that losses and metrics look at: the tensor itself, `.logits`, or the first one.

    Raises:
        ModelError: if the output holds no floating-point tensor.

    Example:
        >>> main_output({"loss": torch.tensor(0.5), "logits": torch.ones(1, 2)})
        tensor([[1., 1.]])
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        named = cast(Mapping[str, object], outputs)
        for key in _MAIN_OUTPUTS:
            if isinstance(named.get(key), Tensor):
                return cast(Tensor, named[key])
        outputs = tuple(named.values())
    if isinstance(outputs, tuple | list):
        for value in outputs:
            if isinstance(value, Tensor) and value.is_floating_point():
                return value
    raise ModelError(
        f"The model returned {type(outputs).__name__} without a floating-point tensor in it. "
        "Return a tensor, a tuple that starts with one, or a mapping with the key 'logits'."
    )


def batch_size(inputs: Inputs) -> int:
    """Return the length of the batch axis of the first tensor of `inputs`."""
    return int(flatten(inputs)[0].shape[0])


def example(inputs: Inputs, size: int) -> Inputs:
    """Return the first `size` samples of `inputs`, as tensors that own their memory."""
    return map_tensors(lambda t: t[:size].clone(), inputs)


def joined(parts: Sequence[Inputs]) -> Inputs:
    """Return several inputs, whose samples have the same shapes, as one batch.

    Example:
        >>> joined([(torch.zeros(2, 3),), (torch.ones(1, 3),)])[0].shape
        torch.Size([3, 3])
    """
    columns = [[part[key] for part in parts] for key in _keys(parts[0])]
    whole = [torch.cat(column) if isinstance(column[0], Tensor) else column[0] for column in columns]
    return dict(zip(parts[0], whole, strict=True)) if isinstance(parts[0], dict) else tuple(whole)


def alike(parts: Sequence[Inputs]) -> bool:
    """Return whether the samples of several inputs have the same shapes, so that they can be joined.

    Example:
        >>> alike([(torch.zeros(2, 3),), (torch.ones(1, 3),)]), alike([(torch.zeros(2, 3),), (torch.ones(2, 4),)])
        (True, False)
    """
    shapes = {
        tuple(part[key].shape[1:] if isinstance(part[key], Tensor) else None for key in _keys(parts[0]))
        for part in parts
    }
    return len(shapes) == 1


def _keys(inputs: Inputs) -> Iterable[Any]:
    return inputs if isinstance(inputs, dict) else range(len(inputs))


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer of `model`; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
