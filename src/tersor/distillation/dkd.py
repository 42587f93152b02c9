"""Decoupled distillation: the target class and the others, weighted apart."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tersor._check import positive
from tersor.distillation.rows import class_rows
from tersor.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class DKD:
    r"""The divergence of KL split into target against rest, and within the rest.

    $$\ell = T^2 \, \frac{1}{n} \sum_i \Bigl( \alpha\, \mathrm{KL}(b^t_i \| b^s_i) +
      \beta\, \mathrm{KL}(\hat p^t_i \| \hat p^s_i) \Bigr)$$

    with `b` the two probabilities (target, all others) and `p-hat` the classes without the target, renormalised.
    Plain KL weighs the second term by how unsure the teacher is; a sure teacher then teaches little.

    Attributes:
        alpha: weight of target against rest.
        beta: weight within the rest.
        temperature: T, above zero.
        axis: which axis holds the classes.

    Raises:
        ArgumentError: if there is no integer target, fewer than three classes, or the outputs differ in shape.

    Example:
        >>> teacher = torch.tensor([[2.0, 1.0, 0.0]])
        >>> round(DKD()(teacher, teacher, torch.tensor([0])).item(), 6)
        0.0

    Source:
        Zhao et al., Decoupled Knowledge Distillation, CVPR 2022, equation 7. https://arxiv.org/abs/2203.08679
    """

    alpha: float = 1.0
    beta: float = 8.0
    temperature: float = 4.0
    axis: int = -1

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)
        if min(self.alpha, self.beta) < 0:
            raise ArgumentError(f"`alpha` and `beta` must be at least 0, got {self!r}.")

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        z_s, z_t, labels = class_rows(student, teacher, target, self.axis)
        if labels is None:
            raise ArgumentError("`DKD` needs the class of every sample. Without labels use KL or ZScoreKL.")
        if z_s.shape[1] < 3:
            raise ArgumentError(f"`DKD` needs at least 3 classes, got {z_s.shape[1]}. Use KL for two.")
        is_target = F.one_hot(labels, z_s.shape[1]).bool()
        two = [_target_and_rest(z / self.temperature, is_target) for z in (z_s, z_t)]
        rest = [_without_target(z / self.temperature, is_target) for z in (z_s, z_t)]
        first = F.kl_div(two[0], two[1], reduction="batchmean", log_target=True)
        second = F.kl_div(rest[0], rest[1], reduction="batchmean", log_target=True)
        return self.temperature**2 * (self.alpha * first + self.beta * second)


def _target_and_rest(z: Float[Tensor, "rows classes"], is_target: Tensor) -> Float[Tensor, "rows 2"]:
    """Log-probabilities of the target and of all others together."""
    log_all = z.logsumexp(1)
    log_rest = z.masked_fill(is_target, float("-inf")).logsumexp(1)
    return torch.stack([z[is_target] - log_all, log_rest - log_all], dim=1)


def _without_target(z: Float[Tensor, "rows classes"], is_target: Tensor) -> Float[Tensor, "rows others"]:
    """Log-probabilities of the classes that are left once the target is taken out."""
    return F.log_softmax(z[~is_target].view(z.shape[0], -1), dim=1)
