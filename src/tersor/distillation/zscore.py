"""Response distillation on standardised logits."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tersor._check import positive
from tersor.distillation.rows import class_rows
from tersor.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class ZScoreKL:
    r"""KL divergence after standardising each row of logits.

    $$\hat z_{ic} = \frac{z_{ic} - \mathrm{mean}_c z_i}{\mathrm{std}_c z_i + \epsilon}, \qquad
      \ell = \tau^2 \, \frac{1}{n} \sum_i \mathrm{KL}\bigl(\mathrm{softmax}(\hat z^t_i / \tau) \,\|\,
      \mathrm{softmax}(\hat z^s_i / \tau)\bigr)$$

    A small student need not copy the range of the teacher's logits, only their order and relative
    distances. With two classes nothing but the sign would be left, so at least three are asked for.

    Attributes:
        temperature: tau, above zero.
        axis: which axis holds the classes.

    Raises:
        ArgumentError: if the temperature is not positive, outputs differ in shape or have under three classes.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[3.0, 1.0, 0.0]])
        >>> round(ZScoreKL()(10 * teacher + 5, teacher, None).item(), 6)
        0.0

    Source:
        Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024, algorithm 1, base temperature 2.
        https://arxiv.org/abs/2403.01427
    """

    temperature: float = 2.0
    axis: int = -1

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        z_s, z_t, _ = class_rows(student, teacher, target, self.axis)
        if z_s.shape[1] < 3:
            raise ArgumentError(
                f"`ZScoreKL` needs at least 3 classes, got {z_s.shape[1]}. Use KL or BinaryKL for two."
            )
        log_q = F.log_softmax(_standard(z_s) / self.temperature, dim=1)
        log_p = F.log_softmax(_standard(z_t) / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _standard(rows: Float[Tensor, "rows classes"]) -> Float[Tensor, "rows classes"]:
    return (rows - rows.mean(dim=1, keepdim=True)) / (rows.std(dim=1, keepdim=True) + 1e-7)
