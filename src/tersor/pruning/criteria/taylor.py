"""First-order Taylor: how much the loss moves when a unit goes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tersor.analysis.evidence import Evidence
from tersor.pruning.criteria.registry import criterion


def effects(evidence: Evidence) -> Float[Tensor, "samples units"]:
    """Return the first-order effect of each unit on the loss of each sample, over all its consumers.

    The sum is taken before any absolute value: the consumers lose the unit together. Where only products of
    two activations read the units, as those of query and key, each producer has the whole effect, and
    their mean is taken.
    """
    found = [part.saliency for part in evidence.consumers if part.saliency is not None]
    return torch.stack(found).sum(0) / evidence.times


@criterion("taylor")
@dataclass(frozen=True, slots=True)
class Taylor:
    r"""Mean absolute first-order change of a sample's loss when the unit is removed.

    $$s_u = \frac{1}{N} \sum_n \Bigl| \sum_{w \in \mathrm{consumers}(u)} w \, \partial L_n / \partial w \Bigr|$$

    Only the consumer side is summed: that cut removes the unit exactly once,
    where adding the producer side would count it twice. In units of the loss,
    so scores of different groups compare as they are.

    Example:
        >>> from tersor.analysis.evidence import Part
        >>> part = Part("fc.weight", 1, "reads", torch.ones(2, 1), saliency=torch.tensor([[1.0, 0.5], [-1.0, 0.5]]))
        >>> Taylor().score(Evidence("fc", 2, (part,), frozenset({"saliency"})))
        tensor([1.0000, 0.5000])

    Source:
        Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017,
        section 2.2, equation 8.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Per-sample first-order effects."""
        return frozenset({"saliency"})

    def score(self, evidence: Evidence) -> Float[Tensor, "units"]:
        """Return the mean absolute effect of each unit, in units of the loss."""
        evidence.require(self.needs, self)
        return effects(evidence).abs().mean(0)
