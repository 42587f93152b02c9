"""Adam with Nesterov's look-ahead and decoupled weight decay."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tersor.optimizers.groups import as_groups
from tersor.optimizers.registry import Parameters, check_ranges, recipe
from tersor.optimizers.single_pass import SinglePass


@recipe("nadamw")
@dataclass(frozen=True, slots=True)
class NAdamW:
    r"""AdamW that steps along where the momentum is about to be.

    $$w \leftarrow (1 - \eta\lambda) w, \quad m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
      v \leftarrow \beta_2 v + (1 - \beta_2) g^2$$
    $$w \leftarrow w - \eta \, \frac{\beta_1 m / (1 - \beta_1^{t+1}) + (1 - \beta_1) g / (1 - \beta_1^t)}
      {\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$

    The decay of the momentum is constant; the schedule that torch's NAdam adds to it is left out.

    Attributes:
        lr: learning rate, above zero.
        beta1: decay of the mean of gradients, in [0, 1).
        beta2: decay of the mean of squared gradients, in [0, 1).
        eps: added to the denominator.
        weight_decay: decoupled.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = NAdamW(lr=0.1, beta1=0.0, weight_decay=0.0).build([w])
        >>> w.grad = torch.tensor([5.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.9

    Source:
        Dozat, Incorporating Nesterov Momentum into Adam, ICLR workshop 2016, algorithm 8, with constant mu; decay
        as in Loshchilov and Hutter 2019.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        betas = (self.beta1, self.beta2)
        defaults = {"lr": self.lr, "betas": betas, "eps": self.eps, "weight_decay": self.weight_decay}
        return _NAdamW(as_groups(parameters), defaults)


def _rule(w: Tensor, g: Tensor, m: Tensor, v: Tensor, *numbers: float) -> None:
    shrink, rest1, rest2, along_m, along_g, root, eps = numbers
    m.lerp_(g, rest1)
    v.lerp_(g * g, rest2)
    denominator = v.sqrt().mul_(root).add_(eps)
    w.mul_(shrink).sub_((m * along_m).add_(g * along_g).div_(denominator))


class _NAdamW(SinglePass):
    buffers = ("mean", "square")
    rule = staticmethod(_rule)

    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        along_m = group["lr"] * beta1 / (1 - beta1 ** (step + 1))
        along_g = group["lr"] * (1 - beta1) / (1 - beta1**step)
        root = (1 - beta2**step) ** -0.5
        return (
            1 - group["lr"] * group["weight_decay"],
            1 - beta1,
            1 - beta2,
            along_m,
            along_g,
            root,
            group["eps"],
        )
