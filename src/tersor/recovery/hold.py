"""Weights that stay zero: masks in force through a training run."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tersor.errors import ArgumentError


class Holder:
    """Keeps masked entries of parameters at exactly zero.

    Masking the gradient keeps them out of clipping and of the optimizer's means; masking the weight
    afterwards undoes what weight decay or a mean from before the mask may add.

    Args:
        model: whose parameters are held; masked entries are zeroed at once.
        masks: by parameter name; entries with 0 are held.

    Raises:
        ArgumentError: if a mask names no parameter or has another shape.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> _ = Holder(model, {"weight": torch.tensor([[1.0, 0.0]])})
        >>> bool(model.weight[0, 1] == 0)
        True
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        known = dict(model.named_parameters())
        for name, mask in masks.items():
            if name not in known or known[name].shape != mask.shape:
                wanted = f"shape {tuple(known[name].shape)}" if name in known else "no such parameter"
                raise ArgumentError(
                    f"The mask for {name!r} has shape {tuple(mask.shape)}; the model has {wanted}."
                )
        self._held = [(known[name], mask.to(known[name])) for name, mask in masks.items()]
        self.mask_weights()

    def mask_gradients(self) -> None:
        """Zero the gradients of held entries."""
        for parameter, mask in self._held:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Zero the held entries themselves."""
        for parameter, mask in self._held:
            parameter.mul_(mask)
