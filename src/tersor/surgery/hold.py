"""Weights that stay zero through training: the one place that puts masked entries back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tersor.errors import ArgumentError


class Holder:
    """Keeps masked entries of parameters at exactly zero; for training loops that know of it.

    Masking the gradient keeps them out of clipping and of the optimizer's means; masking the weight
    afterwards undoes what weight decay or a mean from before the mask may add.

    Args:
        model: whose parameters are held; masked entries are zeroed at once.
        masks: by parameter name, True or 1 where a weight stays. `zeros_of` reads them off a masked model.

    Raises:
        ArgumentError: if a mask names no parameter or has another shape.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> holder = Holder(model, {"weight": torch.tensor([[True, False]])}).attach(optimizer)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> model.weight[0, 1].item()
        0.0
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        self._known, self._masks = dict(model.named_parameters()), dict[str, Tensor]()
        self.hold(masks)

    def hold(self, masks: Mapping[str, Tensor]) -> None:
        """Put other masks in force, for the parameters that they name; zero what they mask."""
        for name, mask in masks.items():
            if name not in self._known or self._known[name].shape != mask.shape:
                has = (
                    f"shape {tuple(self._known[name].shape)}" if name in self._known else "no such parameter"
                )
                raise ArgumentError(
                    f"The mask of {name!r} has shape {tuple(mask.shape)}; the model has {has}."
                )
            self._masks[name] = mask.to(self._known[name].device) != 0
        self.mask_weights()

    @property
    def masks(self) -> dict[str, Tensor]:
        """The masks in force, True where a weight stays."""
        return dict(self._masks)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters that are held."""
        return {name: self._known[name].detach() for name in self._masks}

    @property
    def ratio(self) -> float:
        """The fraction of the held weights that is masked."""
        masks = self._masks.values()
        return 1 - sum(float(mask.sum()) for mask in masks) / max(sum(mask.numel() for mask in masks), 1)

    def mask_gradients(self) -> None:
        """Zero the gradients of held entries."""
        for name, mask in self._masks.items():
            gradient = self._known[name].grad
            if gradient is not None:
                gradient.masked_fill_(~mask, 0)

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Zero the held entries themselves."""
        for name, mask in self._masks.items():
            put_to_zero(self._known[name], mask)

    def attach(self, optimizer: Optimizer) -> "Holder":
        """Mask gradients before and weights after every step of `optimizer`; return self."""
        optimizer.register_step_pre_hook(lambda *_: self.mask_gradients())
        optimizer.register_step_post_hook(lambda *_: self.mask_weights())
        return self


@dataclass(eq=False)
class Resident:
    """A hook that holds one parameter of the module that it sits on; for training loops that know nothing of it.

    It masks the weight before every forward pass in training, and the gradient as it comes in. With optimizers
    that work entry by entry the entries then never leave zero; for others `settle` does the last step.
    """

    parameter: str
    mask: Tensor

    def __call__(self, module: nn.Module, _: Any) -> None:
        """Run before the module's forward pass."""
        if not module.training:
            return
        tensor = module.get_parameter(self.parameter)
        self.mask = self.mask.to(tensor.device)
        put_to_zero(tensor, self.mask)
        if tensor.requires_grad and not (tensor._backward_hooks or {}):
            tensor.register_hook(self._stop)

    def _stop(self, gradient: Tensor) -> Tensor:
        return gradient.masked_fill(~self.mask, 0)


def reside(model: nn.Module, parameter: str, mask: Tensor) -> None:
    """Zero the entries of a parameter of `model` in place where `mask` is zero, and hold them there."""
    owner, _, leaf = parameter.rpartition(".")
    module = model.get_submodule(owner)
    resident = Resident(leaf, mask != 0)
    put_to_zero(module.get_parameter(leaf), resident.mask)
    module.register_forward_pre_hook(resident)


def settle(model: nn.Module) -> nn.Module:
    """Put every entry that a resident hook holds to zero and take the hooks off; return the same model."""
    for module in model.modules():
        held = {key: hook for key, hook in module._forward_pre_hooks.items() if isinstance(hook, Resident)}
        for key, hook in held.items():
            tensor = module.get_parameter(hook.parameter)
            put_to_zero(tensor, hook.mask.to(tensor.device))
            del module._forward_pre_hooks[key]
    return model


def put_to_zero(tensor: Tensor, mask: Tensor) -> None:
    """Zero the entries of a parameter, in place, where `mask` is False."""
    with torch.no_grad():
        tensor.masked_fill_(~mask, 0)


def zeros_of(model: nn.Module) -> dict[str, Tensor]:
    """Return masks that hold every entry that is exactly zero now, of parameters that have any.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> model.weight.data[0, 0] = 0
        >>> zeros_of(model)["weight"].tolist()
        [[False, True]]
    """
    weights = {name: value.detach() for name, value in model.named_parameters() if value.dim() > 1}
    return {name: value != 0 for name, value in weights.items() if bool((value == 0).any())}
