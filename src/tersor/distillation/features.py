"""Distillation inside the network: hidden features and attention relations."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tersor._check import positive
from tersor.distillation.rows import same_shape, wide
from tersor.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class Hint:
    r"""Squared error of features, in units of the teacher's variance by channel.

    $$\ell = \frac{1}{|K|} \sum_{c \in K} \frac{\mathrm{mean}\,(h^s_{c'} - h^t_c)^2}{\mathrm{var}\, h^t_c + \epsilon}$$

    where `K` lists the teacher's channels that the student kept, and `c'` is the place of `c` in it. Cutting
    channels leaves the others comparable one by one, so no adapter is needed.

    Attributes:
        keep: indices of the teacher's channels that the student has, in the student's order; None for all.
        axis: which axis holds the channels.

    Raises:
        ArgumentError: if the features do not match after the selection.

    Example:
        >>> teacher = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 1.0]])
        >>> Hint(keep=(0, 2))(teacher[:, [0, 2]], teacher, None).item()
        0.0

    Source:
        Romero et al., FitNets, ICLR 2015, equation 3, with indices in place of the regressor.
        https://arxiv.org/abs/1412.6550
    """

    keep: tuple[int, ...] | None = None
    axis: int = 1

    def __call__(self, student: Tensor, teacher: Tensor, _target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        if self.keep is not None:
            if self.keep and max(self.keep) >= teacher.shape[self.axis]:
                raise ArgumentError(f"`keep` names channel {max(self.keep)} of {teacher.shape[self.axis]}.")
            teacher = teacher.index_select(self.axis, torch.tensor(self.keep, device=teacher.device))
        same_shape(student, teacher)
        h_s, h_t = (wide(t).movedim(self.axis, 0).flatten(1) for t in (student, teacher))
        variance = h_t.var(dim=1, correction=0)
        # A dead channel has no variance of its own: the mean of all then sets its unit.
        unit = variance + 1e-3 * variance.mean() + 1e-12
        return ((h_s - h_t).square().mean(1) / unit).mean()


@dataclass(frozen=True, slots=True)
class Relation:
    r"""The divergence of self-attention relations: how similar positions are to each other.

    $$\ell = \frac{1}{n a l} \sum \mathrm{KL}(R^t \| R^s), \qquad
      R = \mathrm{softmax}\bigl(H H^\top / \sqrt{d}\bigr)$$

    for hidden states `H` of (batch, length, width), cut into `heads` parts of `d` channels. Student and teacher may
    differ in width and in their own number of heads. Called on queries, keys and values, it is MiniLMv2's loss.

    Attributes:
        heads: number of parts of the width; must divide both widths.

    Raises:
        ArgumentError: if shapes do not fit.

    Example:
        >>> hidden = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
        >>> round(Relation(heads=2)(hidden, hidden, None).item(), 6)
        0.0

    Source:
        Wang et al., MiniLMv2, ACL Findings 2021, equations 5 to 7. https://arxiv.org/abs/2012.15828
    """

    heads: int = 12

    def __post_init__(self) -> None:
        positive("heads", self.heads)

    def __call__(self, student: Tensor, teacher: Tensor, _target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        if student.dim() != 3 or student.shape[:2] != teacher.shape[:2]:
            raise ArgumentError(
                f"`Relation` compares (batch, length, width) of one batch and length, got {tuple(student.shape)}"
                f" and {tuple(teacher.shape)}."
            )
        log_s, log_t = self._relations(student), self._relations(teacher)
        rows = log_s.shape[:-1].numel()
        return F.kl_div(log_s, log_t, reduction="sum", log_target=True) / rows

    def _relations(
        self, hidden: Float[Tensor, "batch length width"]
    ) -> Float[Tensor, "batch heads length length"]:
        width = hidden.shape[2]
        if width % self.heads:
            raise ArgumentError(f"`heads={self.heads}` must divide the width {width}.")
        parts = wide(hidden).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return F.log_softmax(parts @ parts.mT / (width // self.heads) ** 0.5, dim=-1)


@dataclass(frozen=True, slots=True)
class AttentionMap:
    r"""Squared distance of normalised maps of where activations are large.

    $$\ell = \frac{1}{n} \sum_i \Bigl\lVert \frac{a^s_i}{\lVert a^s_i \rVert} - \frac{a^t_i}{\lVert a^t_i \rVert}
      \Bigr\rVert^2, \qquad a_i = \mathrm{vec} \sum_c |h_{ic}|^2$$

    For features of (batch, channels, ...) that may differ in channels. Between unlike families of networks it
    does harm.

    Raises:
        ArgumentError: if the places differ.

    Example:
        >>> h = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> round(AttentionMap()(h[:, :2] * 0 + h[:, :1], h[:, :1], None).item(), 6)
        0.0

    Source:
        Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017, section 3.1, p = 2.
        https://arxiv.org/abs/1612.03928
    """

    def __call__(self, student: Tensor, teacher: Tensor, _target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        if student.dim() < 3 or student.shape[2:] != teacher.shape[2:]:
            raise ArgumentError(
                f"`AttentionMap` compares maps of one size, got {tuple(student.shape)} and {tuple(teacher.shape)}."
            )
        a_s, a_t = (F.normalize(wide(h).square().sum(1).flatten(1), dim=1) for h in (student, teacher))
        return (a_s - a_t).square().sum(1).mean()
