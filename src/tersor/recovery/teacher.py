"""The teacher as a function of a batch: run in eval mode, without gradients, never changed."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from tersor.distillation.rules import Loss
from tersor.loading.task import Batch
from tersor.recovery.arithmetic import PLAIN, Arithmetic
from tersor.recovery.loop import Objective
from tersor.recovery.norms import evaluating, on_device

#: Main output of the teacher for a batch, without gradient.
Teacher: TypeAlias = Callable[[Batch], Tensor]


def live(teacher: nn.Module, arithmetic: Arithmetic = PLAIN) -> Teacher:
    """Return the teacher as a function that runs it on every batch.

    Example:
        >>> import torch
        >>> live(nn.Identity())(Batch((torch.ones(1, 2),), None, (0,)))
        tensor([[1., 1.]])
    """

    def answer(batch: Batch) -> Tensor:
        with evaluating(teacher):
            return arithmetic.output(teacher, on_device(teacher, batch.inputs))

    return answer


def imitation(teacher: Teacher, loss: Loss, arithmetic: Arithmetic = PLAIN) -> Objective:
    """Return the objective that makes a student answer like `teacher`."""

    def objective(student: nn.Module, batch: Batch) -> Tensor:
        wanted = teacher(batch)
        output = arithmetic.output(student, batch.inputs)
        target = None if batch.target is None else batch.target.to(output.device)
        return loss(output, wanted.to(output.device), target)

    return objective


def distance(student: nn.Module, batches: list[Batch], objective: Objective) -> float:
    """Return the mean of `objective` over `batches` by sample, with the student in eval mode."""
    with evaluating(student):
        values = [
            objective(student, Batch(on_device(student, b.inputs), b.target, b.ids)).item() * len(b.ids)
            for b in batches
        ]
    return sum(values) / sum(len(batch.ids) for batch in batches)
