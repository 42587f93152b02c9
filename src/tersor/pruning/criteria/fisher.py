"""Second-order Taylor with the empirical Fisher: the curvature of the loss along the removal of a unit."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tersor.analysis.evidence import Evidence
from tersor.pruning.criteria.registry import criterion
from tersor.pruning.criteria.taylor import effects


@criterion("fisher")
@dataclass(frozen=True, slots=True)
class Fisher:
    r"""Expected increase of the loss at a minimum, to second order.

    $$s_u = \tfrac12 w_u^T F_{uu} w_u
          = \frac{1}{2N} \sum_n \Bigl( \sum_{w \in \mathrm{consumers}(u)} w \, \partial L_n / \partial w \Bigr)^2$$

    with the empirical Fisher $F = E[g g^T]$ for the Hessian, whole block of the
    unit. `diagonal=True` drops the cross terms inside the unit,
    $\tfrac12 \sum_w w^2 E[g_w^2]$ (optimal brain damage).

    Attributes:
        diagonal: use the diagonal of F only.

    Example:
        >>> from tersor.analysis.evidence import Part
        >>> part = Part("fc.weight", 1, "reads", torch.ones(1, 1), saliency=torch.tensor([[1.0], [-3.0]]))
        >>> Fisher().score(Evidence("fc", 1, (part,), frozenset({"saliency"})))
        tensor([2.5000])

    Source:
        Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018, equation 9;
        LeCun et al., Optimal Brain Damage, NIPS 1989, equation 5 (diagonal).
    """

    diagonal: bool = False

    @property
    def needs(self) -> frozenset[str]:
        """Per-sample effects, or squared gradients for the diagonal."""
        return frozenset({"curvature" if self.diagonal else "saliency"})

    def score(self, evidence: Evidence) -> Float[Tensor, "units"]:
        """Return the expected increase of the loss for each unit, in units of the loss."""
        evidence.require(self.needs, self)
        if not self.diagonal:
            return effects(evidence).square().mean(0) / 2
        found = [part.curvature for part in evidence.consumers if part.curvature is not None]
        return torch.stack(found).sum(0) / (2 * evidence.times**2)
