"""Schedule-free AdamW."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tersor._check import positive
from tersor.errors import ArgumentError
from tersor.optimizers.groups import as_groups
from tersor.optimizers.registry import Parameters, check_ranges, recipe
from tersor.optimizers.single_pass import SinglePass
from tersor.optimizers.switching import Switching


@recipe("schedule_free")
@dataclass(frozen=True, slots=True)
class ScheduleFree:
    r"""AdamW whose average of iterates takes the place of a decaying learning rate.

    $$v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad d = \sqrt{v / (1 - \beta_2^t)} + \epsilon$$
    $$z \leftarrow z - \eta (g / d + \lambda y), \quad x \leftarrow (1 - c) x + c z, \quad
      y \leftarrow (1 - \beta_1) z + \beta_1 x, \qquad c = \eta^2 / \textstyle\sum \eta^2$$

    Gradients are taken at `y`, which the parameters hold while training; `to_evaluation_point` sets them to `x`.
    For runs of unknown length. Statistics of batch norms belong to `y` and must be re-estimated at `x`.

    Attributes:
        lr: learning rate, above zero; larger than with a schedule.
        beta1: how near gradients are taken to the average, in (0, 1).
        beta2: decay of the mean of squared gradients, in [0, 1).
        eps: added to the denominator.
        weight_decay: at `y`, decoupled.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = ScheduleFree(lr=0.1).build([w])
        >>> w.grad = torch.tensor([5.0])
        >>> optimizer.step()
        >>> optimizer.to_evaluation_point()
        >>> round(w.item(), 4)
        0.9

    Source:
        Defazio et al., The Road Less Scheduled, NeurIPS 2024, algorithm 1. https://arxiv.org/abs/2405.15682
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)
        positive("beta1", self.beta1)

    def build(self, parameters: Parameters) -> "ScheduleFreeAdamW":
        """Make the optimizer for `parameters`."""
        betas = (self.beta1, self.beta2)
        defaults = {"lr": self.lr, "betas": betas, "eps": self.eps, "weight_decay": self.weight_decay}
        return ScheduleFreeAdamW(as_groups(parameters), {**defaults, "weights": 0.0, "training": True})


def _rule(y: Tensor, g: Tensor, z: Tensor, v: Tensor, *numbers: float) -> None:
    rest2, root, eps, decay, towards_z, turn, lr = numbers
    v.lerp_(g * g, rest2)
    direction = (g / v.sqrt().mul_(root).add_(eps)).add_(y * decay)
    # From y = (1 - b) z + b x, with x' = (1 - c) x + c z', the old x need not be stored.
    y.lerp_(z, towards_z).sub_(direction * turn)
    z.sub_(direction.mul_(lr))


class ScheduleFreeAdamW(SinglePass, Switching):
    """The optimizer of `ScheduleFree`."""

    buffers = ("z", "square")
    rule = staticmethod(_rule)

    def start(self, parameter: Tensor) -> dict[str, Any]:
        """Begin with z at the parameter."""
        return {**super().start(parameter), "z": parameter.detach().clone()}

    def step_group(self, group: dict[str, Any]) -> None:
        """Take one step of one group."""
        if not group["training"]:
            raise ArgumentError(
                "The parameters are at the evaluation point. Call `to_training_point()` before a step."
            )
        group["weights"] += group["lr"] ** 2
        super().step_group(group)

    def coefficients(self, group: dict[str, Any], step: int) -> tuple[float, ...]:
        """Return the numbers of `_rule`."""
        beta1, beta2 = group["betas"]
        c = group["lr"] ** 2 / group["weights"] if group["weights"] > 0 else 0.0
        turn = group["lr"] * (1 - beta1 * (1 - c))
        root = (1 - beta2**step) ** -0.5
        return 1 - beta2, root, group["eps"], group["weight_decay"], c, turn, group["lr"]

    @torch.no_grad()
    def to_evaluation_point(self) -> None:
        """Set the parameters to x."""
        self._move(to_training=False)

    @torch.no_grad()
    def to_training_point(self) -> None:
        """Set the parameters back to y."""
        self._move(to_training=True)

    def _move(self, *, to_training: bool) -> None:
        for group in self.param_groups:
            if group["training"] == to_training:
                continue
            beta1 = group["betas"][0]
            for parameter in group["params"]:
                if self.state[parameter]:
                    weight = 1 - beta1 if to_training else 1 - 1 / beta1
                    parameter.lerp_(self.state[parameter]["z"], weight)
            group["training"] = to_training
