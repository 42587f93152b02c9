"""A teacher and labels together."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from tersor.distillation.kl import KL, BinaryKL
from tersor.distillation.rules import Loss
from tersor.errors import ArgumentError, DataError


@dataclass(frozen=True, slots=True)
class WithLabels:
    r"""A weighted sum of a loss against labels and one against the teacher.

    $$\ell = \alpha\, \ell_{labels}(s, y) + (1 - \alpha)\, \ell_{teacher}(s, t, y)$$

    Attributes:
        labels: loss of (output, target), such as `torch.nn.functional.cross_entropy`.
        teacher: a distillation loss.
        alpha: weight of the labels, in [0, 1].

    Raises:
        ArgumentError: if alpha is outside [0, 1].
        DataError: on a batch without labels.

    Example:
        >>> import torch
        >>> from tersor.distillation.kl import KL
        >>> loss = WithLabels(torch.nn.functional.cross_entropy, KL(), alpha=0.5)
        >>> logits = torch.zeros(1, 2)
        >>> round(loss(logits, logits, torch.tensor([0])).item(), 4)
        0.3466

    Source:
        Hinton, Vinyals and Dean 2015, section 2.
    """

    labels: Callable[[Tensor, Tensor], Tensor]
    teacher: Loss
    alpha: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ArgumentError(f"`alpha` is a weight in [0, 1], got {self.alpha!r}.")

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        if target is None:
            raise DataError("`WithLabels` needs labels and the batch has none. Use its teacher loss alone.")
        return self.alpha * self.labels(student, target) + (1 - self.alpha) * self.teacher(
            student, teacher, target
        )


def with_labels(
    teacher: Loss, labels: Callable[[Tensor, Tensor], Tensor], *, alpha: float = 0.8
) -> WithLabels:
    """Return labels with a fifth of the teacher, or another share of it, at a temperature of 1.

    A network that was made smaller learns from the labels what the original never learned, which widens its distance
    from the limit; the teacher keeps it from forgetting the rest. At a temperature of 1 both gradients have the
    same scale. `bench.recovery.labels` compares.

    Args:
        teacher: the loss that fits the task.
        labels: loss of (output, target).
        alpha: weight of the labels, in [0, 1].

    Example:
        >>> import torch
        >>> with_labels(KL(temperature=2.0), torch.nn.functional.cross_entropy).teacher
        KL(temperature=1.0, axis=-1, probabilities=False)
    """
    sharp = replace(teacher, temperature=1.0) if isinstance(teacher, KL | BinaryKL) else teacher
    return WithLabels(labels, sharp, alpha=alpha)
