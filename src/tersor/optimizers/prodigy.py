"""Prodigy: Adam that finds the size of its steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tersor.optimizers.groups import as_groups
from tersor.optimizers.registry import Parameters, check_ranges, recipe


@recipe("prodigy")
@dataclass(frozen=True, slots=True)
class Prodigy:
    r"""Adam with an estimate `d` of the distance from the start to the solution in place of a tuned rate.

    $$m \leftarrow \beta_1 m + (1 - \beta_1) d g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) d^2 g^2$$
    $$r \leftarrow \sqrt{\beta_2}\, r + \tfrac{d}{d_0} d \eta \langle g, w_0 - w \rangle, \quad
      s \leftarrow \sqrt{\beta_2}\, s + \tfrac{d}{d_0} d \eta g, \quad d' = \max(d, r / \lVert s \rVert_1)$$
    $$w \leftarrow (1 - d\eta\lambda) w - d \eta\, m / (\sqrt{v} + d' \epsilon), \quad d \leftarrow d'$$

    `d` is one number for all parameters.

    Attributes:
        lr: factor on the estimate, above zero; 1.0 unless the loss is noisy.
        beta1: decay of the mean of gradients, in [0, 1).
        beta2: decay of the mean of squared gradients, in [0, 1).
        eps: added to the denominator.
        weight_decay: decoupled.
        d0: first estimate, above zero; small.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Prodigy(lr=1.0).build([w])
        >>> for _ in range(300):
        ...     w.grad = 2 * w.detach()
        ...     optimizer.step()
        >>> abs(w.item()) < 0.1
        True

    Source:
        Mishchenko and Defazio, Prodigy, ICML 2024, algorithm 4, with the weights d/d0 of its reference code.
        https://arxiv.org/abs/2306.06101
    """

    lr: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    d0: float = 1e-6

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        defaults = {
            "lr": self.lr,
            "betas": (self.beta1, self.beta2),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "d0": self.d0,
            "d": self.d0,
            "r": 0.0,
        }
        return _Prodigy(as_groups(parameters), defaults)


class _Prodigy(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride] - torch overloads it
        """Take one step; parameters without a gradient stay as they are."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        d = self._estimate()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group, d)
            group["d"] = d
        return value

    def _estimate(self) -> float:
        """Feed all means and return the new distance; it is one number, kept in every group."""
        first = self.param_groups[0]
        norm, r = 0.0, first["r"] * first["betas"][1] ** 0.5
        for group in self.param_groups:
            weight = group["d"] / group["d0"] * group["d"] * group["lr"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self._fed(parameter, group, weight)
                    r += weight * torch.sum(parameter.grad * (state["start"] - parameter)).item()
                    norm += state["sum"].abs().sum().item()
        for group in self.param_groups:
            group["r"] = r
        return max(first["d"], r / norm) if norm > 0 else first["d"]

    def _fed(self, parameter: Tensor, group: dict[str, Any], weight: float) -> dict[str, Any]:
        state, gradient = self.state[parameter], parameter.grad
        if gradient is None:
            return state
        if not state:
            state["start"] = parameter.detach().clone()
            for name in ("mean", "square", "sum"):
                state[name] = torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        d = group["d"]
        state["mean"].mul_(beta1).add_(gradient, alpha=d * (1 - beta1))
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=d * d * (1 - beta2))
        state["sum"].mul_(beta2**0.5).add_(gradient, alpha=weight)
        return state

    def _move(self, parameter: Tensor, group: dict[str, Any], d: float) -> None:
        state, lr = self.state[parameter], group["d"] * group["lr"]
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.addcdiv_(state["mean"], state["square"].sqrt().add_(d * group["eps"]), value=-lr)
