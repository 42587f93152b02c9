"""What the converter knows of a Keras layer: how it becomes torch modules, and how these become its weights again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

#: Modules that one layer becomes, by what is added to its name ("" for the layer itself), in the order of the calls.
Modules: TypeAlias = Mapping[str, Any]
Shape: TypeAlias = tuple[int | None, ...]
Make: TypeAlias = Callable[[Any, Shape], Modules]


def _no_weights(_modules: Modules) -> dict[str, Tensor]:
    return {}


def _no_sizes(_modules: Modules) -> dict[str, object]:
    return {}


@dataclass(frozen=True, slots=True)
class Rule:
    """How one class of Keras layers is converted.

    Attributes:
        make: modules of (layer, shape of its first input in Keras's order of axes).
        layout: of inputs and outputs: `first` (channels on axis 1), `plain` (Keras's order), `same` (either).
        activated: whether the layer applies its `activation` at the end.
        weights: Keras weights by name, of the modules, for the way back; None where there is no way back.
        sizes: entries of the layer's configuration that a smaller network changes.
    """

    make: Make
    layout: str = "plain"
    activated: bool = False
    weights: Callable[[Modules], dict[str, Tensor]] | None = _no_weights
    sizes: Callable[[Modules], dict[str, object]] = _no_sizes


def arrays(layer: Any) -> dict[str, Tensor]:
    """Return the variables of a Keras layer by their own names, as float32 tensors that own their memory."""
    return {v.name: torch.tensor(np.asarray(v.numpy()), dtype=torch.float32) for v in layer.weights}


def filled(module: nn.Module, tensors: Mapping[str, Tensor | None]) -> nn.Module:
    """Return `module` with the given tensors in its parameters and buffers; None leaves one as it is."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    module.load_state_dict(given, strict=False)
    return module
