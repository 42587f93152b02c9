"""Mixtures of samples: what the teacher answers between its training samples costs no data, and a student needs it."""

import numpy as np
import torch
from torch import Tensor, nn

from tersor.distillation.rules import Loss
from tersor.loading.inputs import Inputs, flatten, map_tensors
from tersor.loading.task import Batch
from tersor.recovery.arithmetic import PLAIN, Arithmetic
from tersor.recovery.loop import Objective
from tersor.recovery.teacher import Teacher
from tersor.recovery.views import counter_rng

#: Both parameters of the Beta distribution of the shares: small ones leave most samples nearly alone.
_SPREAD = 0.3


def mixable(inputs: Inputs) -> bool:
    """Return whether samples of `inputs` can be mixed: all their tensors are numbers of measure, not of words.

    Example:
        >>> mixable((torch.zeros(2, 4),)), mixable((torch.zeros(2, 4, dtype=torch.int64),))
        (True, False)
    """
    tensors = flatten(inputs)
    return bool(tensors) and all(tensor.is_floating_point() for tensor in tensors)


def imitation_between(
    teacher: Teacher, loss: Loss, *, seed: int = 0, arithmetic: Arithmetic = PLAIN
) -> Objective:
    r"""Return the objective that makes a student answer like `teacher` on mixtures of two samples.

    $$\tilde x_i = \lambda_i x_i + (1 - \lambda_i) x_{i-1}, \qquad \lambda_i = \max(b_i, 1 - b_i), \qquad
    b_i \sim \mathrm{Beta}(0.3, 0.3), \qquad \ell(s(\tilde x), t(\tilde x), y)$$

    Every sample stays the larger part of its mixture, most of them nearly alone, and keeps its label if the loss looks
    at labels. The teacher answers for the mixtures themselves. In a long training this keeps a small student from
    learning the samples by heart (`bench.recovery.labels`).

    Args:
        teacher: gives the wanted output of any batch; a cache of outputs by sample is none.
        loss: of (output, wanted output, labels).
        seed: of the mixtures; a batch in the same order is mixed the same way.
        arithmetic: how the student computes.

    Example:
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
        inputs = _mixed(batch, seed)
        wanted = teacher(Batch(inputs, batch.target, batch.ids))
        output = arithmetic.output(student, inputs)
        target = None if batch.target is None else batch.target.to(output.device)
        return loss(output, wanted.to(output.device), target)

    return objective


def _mixed(batch: Batch, seed: int) -> Inputs:
    drawn = counter_rng(seed, batch.ids[0], batch.ids[-1] % 2**64).beta(_SPREAD, _SPREAD, len(batch.ids))
    shares = torch.from_numpy(np.maximum(drawn, 1 - drawn))

    def mix(x: Tensor) -> Tensor:
        share = shares.to(x).view(-1, *[1] * (x.dim() - 1))
        return share * x + (1 - share) * x.roll(1, 0)

    return map_tensors(mix, batch.inputs)
