"""Random: the control that every criterion must beat."""

import zlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tersor.analysis.evidence import Evidence
from tersor.pruning.criteria.registry import criterion


@criterion("random")
@dataclass(frozen=True, slots=True)
class Random:
    """A uniform number in [0, 1) for each unit, fixed by the seed and the name of the group.

    Attributes:
        seed: start of the generator; the same seed gives the same scores.

    Example:
        >>> Random(seed=1).score(Evidence("fc", 3, ())).shape
        torch.Size([3])

    Source:
        Mittal et al., Recovering from Random Pruning, 2018: a control, and after long training not far behind.
    """

    seed: int = 0

    @property
    def needs(self) -> frozenset[str]:
        """Nothing."""
        return frozenset()

    def score(self, evidence: Evidence) -> Float[Tensor, "units"]:
        """Return one random number for each unit."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + zlib.crc32(evidence.group.encode()))
        return torch.rand(evidence.size, generator=generator)
