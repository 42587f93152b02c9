"""Divergences for language models: which way round, and between which mixtures."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tersor._check import fraction, positive
from tersor.distillation.rows import class_rows
from tersor.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class ReverseKL:
    r"""The divergence of the teacher's classes from the student's: seeks modes.

    $$\ell = T^2 \, \frac{1}{n} \sum_i \sum_c q_{ic} (\log q_{ic} - \log p_{ic})$$

    with `q` the student's and `p` the teacher's softened classes. A student too small to cover everything
    that the teacher says then says little that the teacher would not.

    Attributes:
        temperature: T, above zero.
        axis: which axis holds the classes.

    Raises:
        ArgumentError: if the temperature is not positive, or the outputs differ in shape.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0]])
        >>> ReverseKL()(teacher, teacher, None).item()
        0.0

    Source:
        Gu et al., MiniLLM, ICLR 2024, equation 1. https://arxiv.org/abs/2306.08543
    """

    temperature: float = 1.0
    axis: int = -1

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        log_q, log_p = _log_classes(student, teacher, target, self)
        return self.temperature**2 * _divergence(log_q, log_p)


@dataclass(frozen=True, slots=True)
class SkewKL:
    r"""The divergence from the teacher to a mixture with a little teacher in it: bounded gradients.

    $$\ell = T^2 \, \frac{1}{n} \sum_i \mathrm{KL}\bigl(p_i \,\|\, \lambda p_i + (1 - \lambda) q_i\bigr)$$

    Attributes:
        skew: lambda, in [0, 1); 0 is KL.
        temperature: T, above zero.
        axis: which axis holds the classes.

    Raises:
        ArgumentError: if a value is outside its range, or the outputs differ in shape.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0]])
        >>> abs(SkewKL()(teacher, teacher, None).item()) < 1e-6
        True

    Source:
        Ko et al., DistiLLM, ICML 2024, equation 2. https://arxiv.org/abs/2402.03898
    """

    skew: float = 0.1
    temperature: float = 1.0
    axis: int = -1

    def __post_init__(self) -> None:
        fraction("skew", self.skew)
        positive("temperature", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        log_q, log_p = _log_classes(student, teacher, target, self)
        return self.temperature**2 * _divergence(log_p, _mixture(log_p, log_q, self.skew))


@dataclass(frozen=True, slots=True)
class JS:
    r"""The generalised Jensen-Shannon divergence: between KL (beta near 0) and reverse KL (beta near 1).

    $$\ell = T^2 \, \frac{1}{n} \sum_i \beta\, \mathrm{KL}(p_i \| m_i) + (1 - \beta)\, \mathrm{KL}(q_i \| m_i),
      \qquad m = \beta p + (1 - \beta) q$$

    At most `T^2 log 2` for beta = 1/2, whatever the outputs.

    Attributes:
        beta: weight of the teacher, in (0, 1).
        temperature: T, above zero.
        axis: which axis holds the classes.

    Raises:
        ArgumentError: if a value is outside its range, or the outputs differ in shape.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0]])
        >>> abs(JS()(teacher, teacher, None).item()) < 1e-6
        True

    Source:
        Agarwal et al., On-Policy Distillation of Language Models (GKD), ICLR 2024, equation 1.
        https://arxiv.org/abs/2306.13649
    """

    beta: float = 0.5
    temperature: float = 1.0
    axis: int = -1

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)
        if not 0 < self.beta < 1:
            raise ArgumentError(
                f"`beta` must be in (0, 1), got {self.beta!r}. For its ends use KL and ReverseKL."
            )

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        log_q, log_p = _log_classes(student, teacher, target, self)
        middle = _mixture(log_p, log_q, self.beta)
        both = self.beta * _divergence(log_p, middle) + (1 - self.beta) * _divergence(log_q, middle)
        return self.temperature**2 * both


def _log_classes(
    student: Tensor, teacher: Tensor, target: Tensor | None, loss: ReverseKL | SkewKL | JS
) -> tuple[Float[Tensor, "rows classes"], Float[Tensor, "rows classes"]]:
    z_s, z_t, _ = class_rows(student, teacher, target, loss.axis)
    return F.log_softmax(z_s / loss.temperature, dim=1), F.log_softmax(z_t / loss.temperature, dim=1)


def _divergence(log_a: Tensor, log_b: Tensor) -> Float[Tensor, ""]:
    """KL(a || b), mean over rows."""
    return F.kl_div(log_b, log_a, reduction="batchmean", log_target=True)


def _mixture(log_p: Tensor, log_q: Tensor, weight: float) -> Tensor:
    """log(weight p + (1 - weight) q), without leaving the logarithm."""
    if weight == 0:
        return log_q
    parts = torch.tensor([weight, 1 - weight], dtype=torch.float64).log().to(log_p)
    return torch.logaddexp(log_p + parts[0], log_q + parts[1])
