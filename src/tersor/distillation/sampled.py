"""Response distillation for large vocabularies: a few classes drawn from the teacher stand for all of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from tersor._check import positive
from tersor.distillation.rows import IGNORED, wide
from tersor.errors import ArgumentError


def draw_classes(
    logits: Float[Tensor, "*positions classes"], draws: int, generators: Callable[[int], torch.Generator]
) -> Int[Tensor, "*positions draws"]:
    """Draw classes from the teacher's distribution, with replacement.

    Args:
        logits: of the teacher; the first axis is the sample.
        draws: classes for each position; 50 keep 200 bytes where 50,000 logits took 100 kB.
        generators: random numbers of a sample, given its place in the batch: the same for the same sample.

    Returns:
        Class numbers, int32.

    Raises:
        ArgumentError: if `draws` is not positive.

    Example:
        >>> sure = torch.tensor([[0.0, 50.0, 0.0]])
        >>> draw_classes(sure, 4, lambda index: torch.Generator().manual_seed(index))
        tensor([[1, 1, 1, 1]], dtype=torch.int32)
    """
    positive("draws", draws)
    drawn = []
    for index, sample in enumerate(logits.detach().cpu()):
        rows = wide(sample).reshape(-1, sample.shape[-1]).softmax(-1)
        picked = torch.multinomial(rows, draws, replacement=True, generator=generators(index))
        drawn.append(picked.view(*sample.shape[:-1], draws))
    return torch.stack(drawn).int()


@dataclass(frozen=True, slots=True)
class SampledCrossEntropy:
    r"""The cross entropy of the student against classes drawn from the teacher.

    $$\ell = -\frac{1}{n K} \sum_i \sum_{k} \log q_i(c_{ik}), \qquad c_{ik} \sim p_i$$

    Its mean over draws is the cross entropy against the whole distribution, and so is that of its gradient; keeping the
    K largest logits instead would teach too sure a student.

    Raises:
        ArgumentError: if the teacher gives something else than class numbers for each position.

    Example:
        >>> drawn = torch.tensor([[1, 1, 0]], dtype=torch.int32)
        >>> round(SampledCrossEntropy()(torch.zeros(1, 4), drawn).item(), 4)
        1.3863

    Source:
        Anshumann et al., Sparse Logit Sampling, ACL 2025, section 3. https://arxiv.org/abs/2503.16870
    """

    def __call__(self, student: Tensor, teacher: Tensor, target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch; `teacher` holds what `draw_classes` drew."""
        if teacher.is_floating_point() or teacher.shape[:-1] != student.shape[:-1]:
            raise ArgumentError(
                f"`SampledCrossEntropy` takes class numbers drawn for each position, got {teacher.dtype} of shape "
                f"{tuple(teacher.shape)} for outputs of shape {tuple(student.shape)}. Draw them with `draw_classes`."
            )
        picked = F.log_softmax(wide(student), dim=-1).gather(-1, teacher.long()).mean(-1)
        if target is not None and target.shape == picked.shape:
            picked = picked[target != IGNORED]
        return -picked.mean()
