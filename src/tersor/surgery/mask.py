"""Hold a part of a parameter at zero, and keep it there through training."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tersor.errors import PlanError


@dataclass(eq=False)
class Hold:
    """A hook that puts masked entries back to zero before every training step, and stops their gradients.

    With optimizers that work entry by entry the entries then never leave zero; for others `settle` does the
    last step.
    """

    parameter: str
    mask: Tensor

    def __call__(self, module: nn.Module, _: Any) -> None:
        """Run before the module's forward pass."""
        if not module.training:
            return
        tensor = getattr(module, self.parameter)
        self.mask = self.mask.to(tensor.device)
        with torch.no_grad():
            tensor.mul_(self.mask)
        if tensor.requires_grad and not (tensor._backward_hooks or {}):
            tensor.register_hook(self._stop)

    def _stop(self, gradient: Tensor) -> Tensor:
        return gradient * self.mask


def hold(model: nn.Module, parameter: str, pattern: str) -> None:
    """Zero a part of a parameter of `model` in place, and hold it at zero while the model trains.

    Raises:
        PlanError: if there is no such parameter, or the pattern is not one.
    """
    tensor = dict(model.named_parameters()).get(parameter)
    if tensor is None:
        raise PlanError(f"The model has no parameter {parameter!r}.")
    mask = mask_of(tensor.detach(), pattern)
    with torch.no_grad():
        tensor.mul_(mask)
    owner, _, leaf = parameter.rpartition(".")
    model.get_submodule(owner).register_forward_pre_hook(Hold(leaf, mask))


def settle(model: nn.Module) -> nn.Module:
    """Put every held entry to zero and take the hooks off; return the same model."""
    for module in model.modules():
        held = {key: hook for key, hook in module._forward_pre_hooks.items() if isinstance(hook, Hold)}
        for key, hook in held.items():
            tensor = getattr(module, hook.parameter)
            with torch.no_grad():
                tensor.mul_(hook.mask.to(tensor.device))
            del module._forward_pre_hooks[key]
    return model


def mask_of(weight: Tensor, pattern: str) -> Tensor:
    """Return the 0/1 mask of a pattern: `threshold:T`, `ratio:R` or `N:M` along the second axis.

    Example:
        >>> mask_of(torch.tensor([[1.0, -3.0, 2.0, 0.5]]), "2:4")
        tensor([[0., 1., 1., 0.]])
    """
    kind, _, value = pattern.partition(":")
    try:
        if kind == "threshold":
            return (weight.abs() >= float(value)).to(weight.dtype)
        if kind == "ratio":
            return _smallest(weight, float(value))
    except ValueError as error:
        raise PlanError(f"Not a pattern: {pattern!r} ({error}).") from error
    if re.fullmatch(r"\d+:\d+", pattern):
        return _n_of_m(weight, int(kind), int(value))
    raise PlanError(f"Not a pattern: {pattern!r}. Use `threshold:T`, `ratio:R` or `N:M`, as in `2:4`.")


def _smallest(weight: Tensor, ratio: float) -> Tensor:
    if not 0.0 <= ratio < 1.0:
        raise PlanError(f"The ratio of a mask is a fraction in [0, 1), got {ratio}.")
    mask = torch.ones(weight.numel(), dtype=weight.dtype, device=weight.device)
    count = int(ratio * weight.numel())
    mask[weight.abs().flatten().argsort(stable=True)[:count]] = 0
    return mask.reshape(weight.shape)


def _n_of_m(weight: Tensor, n: int, m: int) -> Tensor:
    rows = weight.flatten(1) if weight.dim() > 1 else weight[None]
    if not 0 < n <= m or rows.shape[1] % m:
        raise PlanError(
            f"`{n}:{m}` needs 0 < N <= M and rows of a length that M divides; this one has {rows.shape[1]}."
        )
    blocks = rows.abs().reshape(-1, m)
    mask = torch.zeros_like(blocks)
    mask.scatter_(1, blocks.argsort(dim=1, descending=True, stable=True)[:, :n], 1.0)
    return mask.reshape(weight.shape)
