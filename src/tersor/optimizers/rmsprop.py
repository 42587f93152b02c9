"""RMSprop."""

from dataclasses import dataclass

import torch

from tersor._check import fraction, positive
from tersor.errors import ArgumentError
from tersor.optimizers.groups import as_groups
from tersor.optimizers.registry import Parameters, recipe


@recipe("rmsprop")
@dataclass(frozen=True, slots=True)
class RMSprop:
    r"""Steps divided by the root of a running mean of squared gradients.

    $$g \leftarrow g + \lambda w, \quad v \leftarrow \alpha v + (1 - \alpha) g^2, \quad
      m \leftarrow \mu m + g / (\sqrt{v} + \epsilon), \quad w \leftarrow w - \eta m$$

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
        positive("lr", self.lr)
        fraction("alpha", self.alpha)
        fraction("momentum", self.momentum)
        positive("eps", self.eps)
        if self.weight_decay < 0:
            raise ArgumentError(f"`weight_decay` must be at least 0, got {self.weight_decay!r}.")

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        return torch.optim.RMSprop(
            as_groups(parameters),
            lr=self.lr,
            alpha=self.alpha,
            eps=self.eps,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            foreach=True,
        )
