"""Keras activations as torch modules, by name."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tersor.errors import ModelError


class Exponential(nn.Module):
    """`exp(x)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the exponential."""
        return torch.exp(x)


#: Module of (the axis of the channels) by the name of the Keras function; its defaults, not torch's.
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda _: nn.ReLU(),
    "relu6": lambda _: nn.ReLU6(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "tanh": lambda _: nn.Tanh(),
    "softmax": lambda axis: nn.Softmax(axis),
    "log_softmax": lambda axis: nn.LogSoftmax(axis),
    "gelu": lambda _: nn.GELU(),
    "silu": lambda _: nn.SiLU(),
    "swish": lambda _: nn.SiLU(),
    "elu": lambda _: nn.ELU(),
    "selu": lambda _: nn.SELU(),
    "softplus": lambda _: nn.Softplus(threshold=1e9),
    "softsign": lambda _: nn.Softsign(),
    "leaky_relu": lambda _: nn.LeakyReLU(0.2),
    "hard_sigmoid": lambda _: nn.Hardsigmoid(),
    "hard_silu": lambda _: nn.Hardswish(),
    "hard_swish": lambda _: nn.Hardswish(),
    "hard_tanh": lambda _: nn.Hardtanh(),
    "mish": lambda _: nn.Mish(),
    "log_sigmoid": lambda _: nn.LogSigmoid(),
    "exponential": lambda _: Exponential(),
}


def activation(function: Any, axis: int) -> nn.Module | None:
    """Return the module of a Keras activation function; None for the identity.

    Args:
        function: `layer.activation`: a function of `keras.activations`, or None.
        axis: of the channels.

    Raises:
        ModelError: if it is no function that has a counterpart.
    """
    name = "linear" if function is None else str(getattr(function, "__name__", type(function).__name__))
    if name == "linear":
        return None
    home = str(getattr(function, "__module__", ""))
    if name not in ACTIVATIONS or not home.startswith("keras."):
        raise ModelError(f"the activation {name!r} has no counterpart; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name](axis)
