"""LAMP: magnitude relative to everything larger in the same group."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tersor.analysis.evidence import Evidence
from tersor.pruning.criteria.combine import combined
from tersor.pruning.criteria.registry import criterion


@criterion("lamp")
@dataclass(frozen=True, slots=True)
class Lamp:
    r"""Layer-adaptive magnitude.

    $$s_u = m_u \Big/ \sum_{v:\; m_v \ge m_u} m_v, \qquad
      m_u = \mathrm{mean}_m \|W^{(m)}_u\|_2^2 \Big/ \overline{\|W^{(m)}\|_2^2}$$

    The highest unit of every group scores 1, so a global ranking never empties a group.

    Example:
        >>> from tersor.analysis.evidence import Part
        >>> part = Part("fc.weight", 0, "writes", torch.tensor([[1.0], [2.0], [1.0]]))
        >>> Lamp().score(Evidence("fc", 3, (part,)))
        tensor([0.1667, 1.0000, 0.2000])

    Source:
        Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021, equation 2.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Nothing but the weights."""
        return frozenset()

    def score(self, evidence: Evidence) -> Float[Tensor, "units"]:
        """Return each unit's share of all units at least as large."""
        squares = combined((part.weight.square().sum(1) for part in evidence.weights), "mean")
        order = squares.sort(stable=True)
        remaining = order.values.flip(0).cumsum(0).flip(0)
        share = order.values / remaining.clamp_min(torch.finfo(squares.dtype).tiny)
        return torch.empty_like(share).scatter_(0, order.indices, share)
