"""Lion."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tersor.optimizers.groups import as_groups
from tersor.optimizers.registry import Parameters, check_ranges, recipe
from tersor.optimizers.single_pass import SinglePass


@recipe("lion")
@dataclass(frozen=True, slots=True)
class Lion:
    r"""Steps of one size in the direction of the sign of a momentum.

    $$u = \mathrm{sign}(\beta_1 m + (1 - \beta_1) g), \quad
      w \leftarrow (1 - \eta\lambda) w - \eta u, \quad m \leftarrow \beta_2 m + (1 - \beta_2) g$$

    Half the state of Adam. Its learning rate is 3 to 10 times smaller than Adam's, its decay as much larger.

    Attributes:
        lr: learning rate, above zero: how far every entry moves in a step.
        beta1: weight of the momentum in the direction, in [0, 1).
        beta2: decay of the momentum, in [0, 1).
        weight_decay: decoupled.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Lion(lr=0.1).build([w])
        >>> w.grad = torch.tensor([5.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.9

    Source:
        Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023, program 1.
        https://arxiv.org/abs/2302.06675
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        defaults = {"lr": self.lr, "betas": (self.beta1, self.beta2), "weight_decay": self.weight_decay}
        return _Lion(as_groups(parameters), defaults)


def _rule(w: Tensor, g: Tensor, m: Tensor, shrink: float, rest1: float, rest2: float, lr: float) -> None:
    w.mul_(shrink).sub_(m.lerp(g, rest1).sign_().mul_(lr))
    m.lerp_(g, rest2)


class _Lion(SinglePass):
    buffers = ("momentum",)
    rule = staticmethod(_rule)

    def coefficients(self, group: dict[str, Any], _step: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        return 1 - group["lr"] * group["weight_decay"], 1 - beta1, 1 - beta2, group["lr"]
