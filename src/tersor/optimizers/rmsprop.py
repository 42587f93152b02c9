"""RMSprop."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tersor.optimizers.groups import as_groups, is_fusible, trainable
from tersor.optimizers.registry import Parameters, check_ranges, recipe
from tersor.optimizers.single_pass import SinglePass


@recipe("rmsprop")
@dataclass(frozen=True, slots=True)
class RMSprop:
    r"""Steps divided by the root of a running mean of squared gradients.

    $$g \leftarrow g + \lambda w, \quad v \leftarrow \alpha v + (1 - \alpha) g^2, \quad
      m \leftarrow \mu m + g / (\sqrt{v} + \epsilon), \quad w \leftarrow w - \eta m$$

    Without momentum it runs in torch's fused Adam kernel, which contains it; with momentum in a single pass of ours.

    Attributes:
        lr: learning rate, above zero.
        alpha: decay of the mean of squared gradients, in [0, 1).
        eps: added to the denominator.
        momentum: mu, in [0, 1).
        weight_decay: L2 penalty, coupled with the gradient.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = RMSprop(lr=0.1, alpha=0.75).build([w])
        >>> w.grad = torch.tensor([5.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.8

    Source:
        Tieleman and Hinton, Neural Networks for Machine Learning, lecture 6.5, 2012; epsilon outside the
        root as in torch.optim.RMSprop.
    """

    lr: float
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        groups = as_groups(parameters)
        if self.momentum == 0 and is_fusible(groups):
            return self._as_adam(groups)
        defaults = {
            "lr": self.lr,
            "alpha": self.alpha,
            "eps": self.eps,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
        }
        return _RMSprop(groups, defaults)

    def _as_adam(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Adam without a mean of gradients, and past its bias corrections, is RMSprop; and Adam has a fused kernel."""
        optimizer = torch.optim.Adam(
            groups,
            lr=self.lr,
            betas=(0.0, self.alpha),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=True,
        )
        for parameter in trainable(groups):
            zeros = torch.zeros_like(parameter)
            # 1 - alpha^step is exactly 1 for a step that large, and adding 1 to it changes nothing.
            step = torch.tensor(1e30, device=parameter.device)
            optimizer.state[parameter] = {"step": step, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
        return optimizer


def _rule(w: Tensor, g: Tensor, v: Tensor, m: Tensor, *numbers: float) -> None:
    decay, rest, eps, momentum, lr = numbers
    g = g + w * decay
    v.lerp_(g * g, rest)
    m.mul_(momentum).add_(g.div_(v.sqrt().add_(eps)))
    w.sub_(m * lr)


class _RMSprop(SinglePass):
    buffers = ("square", "momentum")
    rule = staticmethod(_rule)

    def coefficients(self, group: dict[str, Any], _step: int) -> tuple[float, ...]:
        return group["weight_decay"], 1 - group["alpha"], group["eps"], group["momentum"], group["lr"]
