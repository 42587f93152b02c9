"""Activation: weights count by the size of what they multiply."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tersor.analysis.evidence import Evidence, Part
from tersor.pruning.criteria.combine import combined
from tersor.pruning.criteria.registry import criterion


def unread_share(evidence: Evidence) -> Float[Tensor, "units"]:
    r"""Return each unit's share of $\prod_m \|W^{(m)}_u\|_2^2$: for units that no weight reads.

    The products of query and key features are of this kind; the energy of $\sum_u q_u k_u$ over
    independent inputs is the sum of the products of the energies.
    """
    squares = torch.stack([part.weight.square().sum(1) for part in evidence.weights]).prod(0)
    return squares / squares.sum().clamp_min(torch.finfo(squares.dtype).tiny)


@criterion("activation")
@dataclass(frozen=True, slots=True)
class Activation:
    r"""Energy that the unit adds to the outputs of its consumers, features taken as independent.

    $$s_u = \mathrm{mean}_m \sum_{j \in u} E[x_j^2] \, \|W^{(m)}_j\|_2^2 \Big/ \overline{\cdot}$$

    Needs unlabelled data only. Each consumer is divided by its mean over units. Units that no weight reads
    are scored by `unread_share`.

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
        readers = [part for part in evidence.of("reads") if part.moment is not None]
        if not readers:
            return unread_share(evidence) * evidence.size
        return combined((_energy(part) for part in readers), "mean")


def _energy(part: Part) -> Float[Tensor, "units"]:
    assert part.moment is not None
    weight = part.weight.reshape(len(part.weight), part.width, -1)
    return torch.einsum("uw,uwo->u", part.moment, weight.square())
