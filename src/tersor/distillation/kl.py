"""Response distillation: the Kullback-Leibler divergence of softened classes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tersor._check import positive
from tersor.distillation.rows import class_rows, same_shape, wide


@dataclass(frozen=True, slots=True)
class KL:
    r"""The divergence of the student's softened classes from the teacher's.

    $$\ell = T^2 \, \frac{1}{n} \sum_{i} \sum_c p_{ic} \, (\log p_{ic} - \log q_{ic}), \qquad
      p = \mathrm{softmax}(z^t / T), \; q = \mathrm{softmax}(z^s / T)$$

    The mean is over positions (`batchmean`), not over classes; the arithmetic is at least float32.
    The factor T^2 keeps the size of the gradient independent of T.

    Attributes:
        temperature: T, above zero.
        axis: which axis holds the classes.
        probabilities: outputs are probabilities that sum to one (a model that ends in softmax) rather than logits.

    Raises:
        ArgumentError: if the temperature is not positive, or the outputs differ in shape.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0]])
        >>> KL(temperature=1.0)(teacher, teacher, None).item()
        0.0

    Source:
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, section 2.
        https://arxiv.org/abs/1503.02531
    """

    temperature: float = 2.0
    axis: int = -1
    probabilities: bool = False

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        z_s, z_t, _ = class_rows(student, teacher, target, self.axis)
        if self.probabilities:
            z_s, z_t = z_s.clamp_min(1e-7).log(), z_t.clamp_min(1e-7).log()
        log_q = F.log_softmax(z_s / self.temperature, dim=1)
        log_p = F.log_softmax(z_t / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


@dataclass(frozen=True, slots=True)
class BinaryKL:
    r"""The divergence for independent yes/no outputs: one logit (or probability) for each.

    $$\ell = T^2 \, \frac{1}{n} \sum_i \sum_j
      \Bigl( p \log \frac{p}{q} + (1 - p) \log \frac{1 - p}{1 - q} \Bigr), \qquad
      p = \sigma(z^t / T), \; q = \sigma(z^s / T)$$

    For a model that ends in one sigmoid unit, and for multi-label outputs. A model whose last layer is
    the sigmoid gives probabilities: they are turned back into logits.

    Attributes:
        temperature: T, above zero.
        probabilities: outputs are probabilities in [0, 1] rather than logits.

    Raises:
        ArgumentError: if the temperature is not positive, or the outputs differ in shape.

    Example:
        >>> teacher = torch.tensor([[0.9], [0.2]])
        >>> round(BinaryKL(temperature=1.0, probabilities=True)(teacher, teacher, None).item(), 6)
        0.0

    Source:
        Hinton et al. 2015, section 2, with two classes of logits z and 0.
    """

    temperature: float = 2.0
    probabilities: bool = False

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, _target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        same_shape(student, teacher)
        z_s, z_t = self._logits(student) / self.temperature, self._logits(teacher) / self.temperature
        p = torch.sigmoid(z_t)
        cross = F.binary_cross_entropy_with_logits(z_s, p, reduction="sum")
        entropy = F.binary_cross_entropy_with_logits(z_t, p, reduction="sum")
        return self.temperature**2 * (cross - entropy) / student.shape[0]

    def _logits(self, output: Tensor) -> Tensor:
        # 1e-6 is the smallest distance to 1 that float32 still resolves well.
        return torch.logit(wide(output), eps=1e-6) if self.probabilities else wide(output)
