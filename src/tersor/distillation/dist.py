"""Distillation of relations: correlation instead of equality."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tersor._check import positive
from tersor.distillation.rows import class_rows
from tersor.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class DIST:
    r"""One minus the correlation of class probabilities, along rows and along columns.

    $$\ell = T^2 \Bigl( \beta\, \frac{1}{n} \sum_i \bigl(1 - \rho(p^s_{i:}, p^t_{i:})\bigr) +
      \gamma\, \frac{1}{c} \sum_j \bigl(1 - \rho(p^s_{:j}, p^t_{:j})\bigr) \Bigr)$$

    with Pearson's rho of softened probabilities. Robust where the teacher is much stronger than the student.

    Attributes:
        beta: weight of the relation between classes of a sample.
        gamma: weight of the relation between samples of a class.
        temperature: T, above zero.
        axis: which axis holds the classes.

    Raises:
        ArgumentError: if a value is outside its range or the outputs differ in shape.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
        >>> round(DIST()(teacher, teacher, None).item(), 5)
        0.0

    Source:
        Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, equations 8 to 10.
        https://arxiv.org/abs/2205.10536
    """

    beta: float = 1.0
    gamma: float = 1.0
    temperature: float = 1.0
    axis: int = -1

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)
        if min(self.beta, self.gamma) < 0:
            raise ArgumentError(f"`beta` and `gamma` must be at least 0, got {self!r}.")

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        z_s, z_t, _ = class_rows(student, teacher, target, self.axis)
        p_s, p_t = ((z / self.temperature).softmax(1) for z in (z_s, z_t))
        between = (1 - correlation(p_s, p_t)).mean()
        within = (1 - correlation(p_s.T, p_t.T)).mean()
        return self.temperature**2 * (self.beta * between + self.gamma * within)


def correlation(a: Float[Tensor, "rows size"], b: Float[Tensor, "rows size"]) -> Float[Tensor, "rows"]:
    """Return Pearson's correlation of each pair of rows; constant rows correlate with nothing.

    Example:
        >>> import torch
        >>> row = torch.tensor([[1.0, 2.0, 4.0]])
        >>> round(correlation(row, -row).item(), 5)
        -1.0
    """
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    # Added below the root: the norm of a constant row has no gradient.
    return (a * b).sum(1) / ((a.square().sum(1) * b.square().sum(1)) + 1e-16).sqrt()
