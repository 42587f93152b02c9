"""Activation: weights count by the size of what they multiply."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tersor.analysis.evidence import Evidence, Part
from tersor.errors import ArgumentError
from tersor.pruning.criteria.combine import combined
from tersor.pruning.criteria.registry import criterion


def readers(evidence: Evidence, criterion: object) -> tuple[Part, ...]:
    """Return the consumers whose inputs were seen.

    Raises:
        ArgumentError: if there is none.
    """
    found = tuple(part for part in evidence.of("reads") if part.moment is not None)
    if not found:
        raise ArgumentError(
            f"{criterion!r} scores by what consumers read, and nothing that reads {evidence.group!r} was seen. "
            "Score it with `Magnitude` or `Taylor`."
        )
    return found


@criterion("activation")
@dataclass(frozen=True, slots=True)
class Activation:
    r"""Energy that the unit adds to the outputs of its consumers, features taken as independent.

    $$s_u = \mathrm{mean}_m \sum_{j \in u} E[x_j^2] \, \|W^{(m)}_j\|_2^2 \Big/ \overline{\cdot}$$

    Needs unlabelled data only. Each consumer is divided by its mean over units.

    Example:
        >>> from tersor.analysis.evidence import Part
        >>> part = Part("fc.weight", 1, "reads", torch.ones(2, 3), moment=torch.tensor([[1.0], [3.0]]))
        >>> Activation().score(Evidence("fc", 2, (part,), frozenset({"moment"})))
        tensor([0.5000, 1.5000])

    Source:
        Sun et al., A Simple and Effective Pruning Approach for Large Language Models (Wanda), ICLR 2024,
        equation 1; summed over a column as in An et al., FLAP, AAAI 2024 (Wanda-sp).
    """

    @property
    def needs(self) -> frozenset[str]:
        """Second moments of the consumers' inputs."""
        return frozenset({"moment"})

    def score(self, evidence: Evidence) -> Float[Tensor, "units"]:
        """Return the energy of each unit; 1 is the mean of the group."""
        evidence.require(self.needs, self)
        return combined((_energy(part) for part in readers(evidence, self)), "mean")


def _energy(part: Part) -> Float[Tensor, "units"]:
    assert part.moment is not None
    weight = part.weight.reshape(len(part.weight), part.width, -1)
    return torch.einsum("uw,uwo->u", part.moment, weight.square())
