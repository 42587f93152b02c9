"""Magnitude: small weights matter little."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tersor._check import one_of
from tersor.analysis.evidence import Evidence
from tersor.errors import ArgumentError
from tersor.pruning.criteria.combine import COMBINE, combined
from tersor.pruning.criteria.registry import criterion


@criterion("magnitude")
@dataclass(frozen=True, slots=True)
class Magnitude:
    r"""The $\ell_p$ norm of each unit's weights, joined over the members of the group.

    $$s_u = \mathrm{combine}_m \; \|W^{(m)}_u\|_p \Big/ \overline{\|W^{(m)}\|_p}$$

    where m runs over the weights that write or read the unit. Needs no data.
    Computed in float32: in float16 the sum of squares overflows.

    Attributes:
        p: order of the norm, at least 1.
        combine: `mean`, `sum`, `max` or `product` (the geometric mean).

    Raises:
        ArgumentError: if `p < 1` (not a norm) or `combine` is unknown.

    Example:
        >>> from tersor.analysis.evidence import Part
        >>> part = Part("fc.weight", 0, "writes", torch.tensor([[3.0, 4.0], [0.0, 15.0]]))
        >>> Magnitude().score(Evidence("fc", 2, (part,)))
        tensor([0.5000, 1.5000])

    Source:
        Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1 (there p = 1); over coupled
        members: Fang et al., DepGraph, CVPR 2023, section 3.3.
    """

    p: float = 2.0
    combine: str = "mean"

    def __post_init__(self) -> None:
        one_of("combine", self.combine, COMBINE)
        if not self.p >= 1:
            raise ArgumentError(f"`Magnitude(p=...)` needs p >= 1 to be a norm, got {self.p!r}.")

    @property
    def needs(self) -> frozenset[str]:
        """Nothing but the weights."""
        return frozenset()

    def score(self, evidence: Evidence) -> Float[Tensor, "units"]:
        """Return the joined norm of each unit; 1 is the mean of the group."""
        norms = (torch.linalg.vector_norm(part.weight, ord=self.p, dim=1) for part in evidence.weights)
        return combined(norms, self.combine)
