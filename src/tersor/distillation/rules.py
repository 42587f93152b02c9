"""Which loss fits which task, as a table."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from tersor._check import one_of
from tersor.distillation.kl import KL, BinaryKL
from tersor.distillation.mse import MSE
from tersor.distillation.zscore import ZScoreKL
from tersor.errors import ArgumentError


class Loss(Protocol):
    """A distillation loss: a frozen object called with outputs of student and teacher."""

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None, /) -> Tensor:
        """Return the loss of one batch, a scalar that can be differentiated by the student."""
        ...


#: Classes from which standardised logits are worth it; the published gains are on 100 and 1,000.
_MANY = 50

Rule: TypeAlias = Callable[[int | None], Loss]


def _by_classes(classes: int | None) -> Loss:
    if classes == 1:
        return BinaryKL()
    # Standardising drops how sure the teacher is. Of many classes their order still says much; on ten, short recoveries
    # with it lag far behind (bench/results/distillation_digits.md).
    return KL(temperature=2.0) if classes is None or classes < _MANY else ZScoreKL()


#: Loss by task kind; each rule is given the number of classes, None where unknown.
RULES: dict[str, Rule] = {
    "classification": _by_classes,
    "multilabel": lambda _: BinaryKL(temperature=1.0),
    "regression": lambda _: MSE(),
    "segmentation": lambda classes: BinaryKL() if classes == 1 else KL(temperature=2.0, axis=1),
    "tokens": lambda _: KL(temperature=2.0),
    "language": lambda _: KL(temperature=1.0),
    "fidelity": lambda _: MSE(),
}


def default_loss(task_kind: str, classes: int | None = None) -> Loss:
    """Return the distillation loss that fits a kind of task.

    Args:
        task_kind: `Task.kind`.
        classes: size of the class axis; 1 for a single sigmoid unit; None where unknown.

    Raises:
        ArgumentError: if the kind is unknown or `classes` is below one.

    Example:
        >>> default_loss("classification", 10)
        KL(temperature=2.0, axis=-1, probabilities=False)
        >>> default_loss("classification", 100)
        ZScoreKL(temperature=2.0, axis=-1)
        >>> default_loss("classification", 1)
        BinaryKL(temperature=2.0, probabilities=False)
        >>> default_loss("regression")
        MSE(normalized=True)
    """
    if classes is not None and classes < 1:
        raise ArgumentError(f"`classes` must be at least 1, got {classes!r}.")
    return RULES[one_of("task_kind", task_kind, RULES)](classes)


def loss_for(teacher: Tensor, target: Tensor | None, task_kind: str | None = None) -> Loss:
    """Return the loss that fits what a teacher gives on real samples.

    Rows that are non-negative and sum to one are probabilities of classes, and values that all lie in [0, 1]
    in one column are probabilities of yes: the loss then compares them through their logits.

    Args:
        teacher: its outputs on a batch, class axis last (second for images).
        target: the labels of the batch, or None.
        task_kind: `Task.kind`; None infers classification, regression or fidelity from the target.

    Example:
        >>> loss_for(torch.tensor([[0.1], [0.9]]), torch.tensor([[0.0], [1.0]]))
        BinaryKL(temperature=2.0, probabilities=True)
        >>> loss_for(torch.tensor([[3.1], [-4.0]]), torch.tensor([[2.5], [-3.0]]))
        MSE(normalized=True)
    """
    kind = task_kind or _kind(teacher, target)
    axis = 1 if kind == "segmentation" else -1
    classes = teacher.shape[axis] if teacher.dim() > 1 else 1
    chosen = default_loss(kind, classes)
    if isinstance(chosen, BinaryKL) and _within_unit(teacher):
        return BinaryKL(chosen.temperature, probabilities=True)
    if isinstance(chosen, KL | ZScoreKL) and _within_unit(teacher) and _sums_to_one(teacher, axis):
        return KL(temperature=1.0, axis=axis, probabilities=True)
    return chosen


def _kind(teacher: Tensor, target: Tensor | None) -> str:
    if target is None:
        return "fidelity"
    if teacher.dim() == 4 and target.dim() >= 3:
        return "segmentation"
    if not target.is_floating_point():
        return "classification"
    binary = bool(((target == 0) | (target == 1)).all())
    if binary:
        return "classification" if target.dim() < 2 or target.shape[-1] == 1 else "multilabel"
    return "regression"


def _within_unit(output: Tensor) -> bool:
    return bool(((output >= 0) & (output <= 1)).all())


def _sums_to_one(output: Tensor, axis: int) -> bool:
    return torch.allclose(output.sum(dim=axis), torch.ones(()).to(output), atol=1e-3)
