"""FPGM: a unit close to all others can be replaced by them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tersor.analysis.evidence import Evidence
from tersor.pruning.criteria.combine import combined
from tersor.pruning.criteria.registry import criterion


@criterion("fpgm")
@dataclass(frozen=True, slots=True)
class Fpgm:
    r"""Distance to the geometric median, by its proxy: the sum of distances to all units.

    $$s_u = \mathrm{mean}_m \sum_v \|W^{(m)}_u - W^{(m)}_v\|_2 \Big/ \overline{\cdot}$$

    A unit of zeros does not score zero here: redundancy is what counts.

    Example:
        >>> from tersor.analysis.evidence import Part
        >>> part = Part("fc.weight", 0, "writes", torch.tensor([[0.0], [1.0], [5.0]]))
        >>> Fpgm().score(Evidence("fc", 3, (part,)))
        tensor([0.9000, 0.7500, 1.3500])

    Source:
        He et al., Filter Pruning via Geometric Median, CVPR 2019, section 3.3, equation 8.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Nothing but the weights."""
        return frozenset()

    def score(self, evidence: Evidence) -> Float[Tensor, "units"]:
        """Return the summed distance of each unit; 1 is the mean of the group."""
        # Exact differences: the expansion through products loses close pairs to rounding.
        distances = (
            torch.cdist(part.weight, part.weight, compute_mode="donot_use_mm_for_euclid_dist").sum(1)
            for part in evidence.weights
        )
        return combined(distances, "mean")
