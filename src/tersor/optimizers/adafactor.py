"""Adafactor."""

from dataclasses import dataclass

import torch

from tersor.errors import ArgumentError
from tersor.optimizers.groups import as_groups
from tersor.optimizers.registry import Parameters, check_ranges, recipe


@recipe("adafactor")
@dataclass(frozen=True, slots=True)
class Adafactor:
    r"""Steps divided by a rank-one estimate of the mean of squared gradients: almost no state.

    $$r \leftarrow \hat\beta_t r + (1 - \hat\beta_t)\,\mathrm{mean}_{col}(g^2), \quad
      c \leftarrow \hat\beta_t c + (1 - \hat\beta_t)\,\mathrm{mean}_{row}(g^2), \quad
      \hat v = r c / \mathrm{mean}(r), \quad 1 - \hat\beta_t = t^{\gamma}$$
    $$u = g / \sqrt{\hat v}, \quad
      w \leftarrow (1 - \eta\lambda) w - \max(\epsilon, \mathrm{rms}(w)) \min(\eta, t^{-1/2})\,
      u / \max(1, \mathrm{rms}(u) / d)$$

    Parameters with one axis keep the full mean of squares. The arithmetic is torch's.

    Attributes:
        lr: largest step relative to the size of the weights, above zero.
        decay: gamma, below zero.
        eps: smallest size of a weight tensor in the step.
        clip: d, largest root mean square of `u`, at least 1.
        weight_decay: decoupled.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2, 2))
        >>> optimizer = Adafactor(lr=0.1).build([w])
        >>> w.grad = torch.ones(2, 2)
        >>> optimizer.step()
        >>> round(w[0, 0].item(), 4)
        0.9

    Source:
        Shazeer and Stern, Adafactor, ICML 2018, algorithms 4 and 5. https://arxiv.org/abs/1804.04235
    """

    lr: float
    decay: float = -0.8
    eps: float = 1e-3
    clip: float = 1.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.decay >= 0 or self.clip < 1:
            raise ArgumentError(f"`decay` must be below 0 and `clip` at least 1: {self!r}.")

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        return torch.optim.Adafactor(
            as_groups(parameters),
            lr=self.lr,
            beta2_decay=self.decay,
            eps=(None, self.eps),
            d=self.clip,
            weight_decay=self.weight_decay,
        )
