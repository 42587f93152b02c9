"""Mixtures of samples: what the teacher answers between its training samples costs no data, and a student needs it."""

from torch import Tensor, nn

from tersor.distillation.rules import Loss
from tersor.loading.inputs import Inputs, flatten, map_tensors
from tersor.loading.task import Batch
from tersor.recovery.arithmetic import PLAIN, Arithmetic
from tersor.recovery.loop import Objective
from tersor.recovery.teacher import Teacher
from tersor.recovery.views import counter_rng


def mixable(inputs: Inputs) -> bool:
    """Return whether samples of `inputs` can be mixed: all their tensors are numbers of measure, not of words.

    Example:
        >>> import torch
        >>> mixable((torch.zeros(2, 4),)), mixable((torch.zeros(2, 4, dtype=torch.int64),))
        (True, False)
    """
    tensors = flatten(inputs)
    return bool(tensors) and all(tensor.is_floating_point() for tensor in tensors)


def imitation_between(
    teacher: Teacher, loss: Loss, *, seed: int = 0, arithmetic: Arithmetic = PLAIN
) -> Objective:
    r"""Return the objective that makes a student answer like `teacher` on mixtures of two samples.

    $$\tilde x_i = \lambda x_i + (1 - \lambda) x_{i-1}, \qquad
    \lambda\, \ell(s(\tilde x), t(\tilde x), y_i) + (1 - \lambda)\, \ell(s(\tilde x), t(\tilde x), y_{i-1})$$

    with one $\lambda$ uniform in [0, 1] for each batch. The teacher answers for the mixtures themselves, so they need
    no labels; a loss that looks at labels gets those of both samples. In a long training this keeps a small student
    from learning the samples by heart (`bench.recovery.mixing`).

    Args:
        teacher: gives the wanted output of any batch; a cache of outputs by sample is none.
        loss: of (output, wanted output, labels).
        seed: of the mixtures; a batch in the same order is mixed the same way.
        arithmetic: how the student computes.

    Example:
        >>> import torch
        >>> from tersor.distillation.mse import MSE
        >>> from tersor.recovery.teacher import live
        >>> between = imitation_between(live(nn.Identity()), MSE())
        >>> between(nn.ReLU(), Batch((torch.tensor([[-1.0], [1.0]]),), None, (0, 1))).item() < 0.5
        True

    Source:
        Zhang et al., mixup, ICLR 2018. https://arxiv.org/abs/1710.09412
        With a teacher's answers: Beyer et al., Knowledge distillation: a good teacher is patient and consistent, CVPR
        2022. https://arxiv.org/abs/2106.05237
    """

    def objective(student: nn.Module, batch: Batch) -> Tensor:
        share = counter_rng(seed, batch.ids[0], batch.ids[-1] % 2**64).random()
        inputs = map_tensors(lambda x: share * x + (1 - share) * x.roll(1, 0), batch.inputs)
        wanted = teacher(Batch(inputs, batch.target, batch.ids))
        output = arithmetic.output(student, inputs)
        wanted = wanted.to(output.device)
        if batch.target is None:
            return loss(output, wanted, None)
        target = batch.target.to(output.device)
        return share * loss(output, wanted, target) + (1 - share) * loss(output, wanted, target.roll(1, 0))

    return objective
