"""Scale of the normalization: a channel multiplied by little matters little."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tersor.analysis.evidence import Evidence
from tersor.errors import ArgumentError
from tersor.pruning.criteria.combine import combined
from tersor.pruning.criteria.registry import criterion


@criterion("bn_scale")
@dataclass(frozen=True, slots=True)
class BnScale:
    r"""The absolute scale $|\gamma_u|$ of the normalizations that the unit goes through.

    Over several normalizations the mean, each divided by its own mean scale.

    Example:
        >>> import torch
        >>> from tersor.analysis.evidence import Part
        >>> part = Part("bn.weight", 0, "scales", torch.tensor([[0.5], [-1.5]]))
        >>> BnScale().score(Evidence("conv", 2, (part,)))
        tensor([0.5000, 1.5000])

    Source:
        Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, section 3.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Nothing but the weights."""
        return frozenset()

    def score(self, evidence: Evidence) -> Float[Tensor, "units"]:
        """Return the scale of each unit; 1 is the mean of the group.

        Raises:
            ArgumentError: if the group has no normalization with a scale.
        """
        scales = evidence.of("scales")
        if not scales:
            raise ArgumentError(
                f"{evidence.group!r} has no normalization with a scale. Score it with `Magnitude`."
            )
        return combined((part.weight.abs().sum(1) for part in scales), "mean")
