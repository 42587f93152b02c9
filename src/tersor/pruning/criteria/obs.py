"""Structured optimal brain surgeon: remove a unit, let the others take over, look at what is lost."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tersor._check import positive
from tersor.analysis.evidence import Evidence, Part
from tersor.pruning.criteria.activation import unread_share
from tersor.pruning.criteria.registry import criterion


@criterion("obs")
@dataclass(frozen=True, slots=True)
class Obs:
    r"""Output error of the consumers after the best linear repair, units removed one by one.

    With the input features of a consumer $H = E[x x^T] + \lambda I$ and its weight $W$ (features, outputs),
    removing the features $S$ of a unit and refitting the rest costs

    $$\Delta_S = \operatorname{tr}\bigl( W_S^T \, ((H^{-1})_{SS})^{-1} \, W_S \bigr)$$

    summed over the consumers, each divided by its whole output energy tr(W^T H W). The cheapest unit goes
    first; W and H^{-1} are then updated in closed form, so later scores know what was removed before.
    Units that no weight reads are scored by `unread_share`. Needs unlabelled data; meant for use with
    `compensate`, which carries the repair out.

    Attributes:
        damping: $\lambda$ as a fraction of the mean of diag(H).

    Raises:
        ArgumentError: if `damping` is not positive.

    Example:
        >>> gram = torch.tensor([[1.0, 1.0], [1.0, 1.0]])  # the second feature repeats the first
        >>> part = Part("fc.weight", 1, "reads", torch.ones(2, 1), moment=torch.ones(2, 1), gram=gram)
        >>> scores = Obs(damping=1e-4).score(Evidence("fc", 2, (part,), frozenset({"gram"})))
        >>> bool(scores.min() < 1e-3), bool(scores.max() > 0.9)
        (True, True)

    Source:
        Kurtic et al., ZipLM: Inference-Aware Structured Pruning of Language Models, NeurIPS 2023, section 3.1,
        equations 2 to 4; Hassibi and Stork, Second order derivatives for network pruning, NIPS 1992.
    """

    damping: float = 0.01

    def __post_init__(self) -> None:
        positive("damping", self.damping)

    @property
    def needs(self) -> frozenset[str]:
        """Second moments of the consumers' inputs, whole matrix."""
        return frozenset({"gram"})

    def score(self, evidence: Evidence) -> Float[Tensor, "units"]:
        """Return the cost of each unit at the time that it goes, made non-decreasing in that order."""
        evidence.require(self.needs, self)
        consumers = [_Consumer(part, self.damping) for part in evidence.of("reads") if part.gram is not None]
        if not consumers:
            return unread_share(evidence)
        alive = torch.ones(evidence.size, dtype=torch.bool)
        scores = torch.zeros(evidence.size, dtype=torch.float64)
        highest = 0.0
        for _ in range(evidence.size):
            costs = torch.stack([consumer.costs() for consumer in consumers]).sum(0)
            unit = int(torch.where(alive, costs, torch.inf).argmin())
            highest = max(highest, float(costs[unit]))
            scores[unit], alive[unit] = highest, False
            for consumer in consumers:
                consumer.remove(unit)
        return scores.float()


class _Consumer:
    """Weight and inverse Hessian of one consumer, updated as units go."""

    def __init__(self, part: Part, damping: float) -> None:
        assert part.gram is not None
        units, width = len(part.weight), part.width
        # On the processor: many small dependent steps, which a GPU does not help.
        gram = part.gram.double().cpu()
        ridge = damping * gram.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
        gram = gram + ridge * torch.eye(len(gram), dtype=torch.float64)
        self.weight = part.weight.double().cpu().reshape(units, width, -1)
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram)).reshape(units, width, units, width)
        flat = self.weight.flatten(0, 1)
        self.energy = float((flat * (gram @ flat)).sum()) or 1.0
        self.gone = torch.zeros(units, dtype=torch.bool)

    def _blocks(self) -> Float[Tensor, "units width width"]:
        blocks = self.inverse.diagonal(dim1=0, dim2=2).movedim(-1, 0).clone()
        # A removed unit leaves zeros, which have no inverse.
        blocks[self.gone] = torch.eye(blocks.shape[1], dtype=blocks.dtype)
        return blocks

    def costs(self) -> Float[Tensor, "units"]:
        """Return the relative error of removing each unit now; 0 for those gone."""
        solved = torch.linalg.solve(self._blocks(), self.weight)
        return (self.weight * solved).sum((1, 2)).clamp_min(0) / self.energy

    def remove(self, unit: int) -> None:
        """Take a unit out: block elimination in the weight and the inverse."""
        column = self.inverse[:, :, unit]
        gain = torch.linalg.solve(self._blocks()[unit], column.flatten(0, 1).T).T.reshape(column.shape)
        self.weight -= torch.einsum("uws,so->uwo", gain, self.weight[unit])
        self.inverse -= torch.einsum("uws,svx->uwvx", gain, self.inverse[unit])
        self.weight[unit] = 0
        self.inverse[unit] = 0
        self.inverse[:, :, unit] = 0
        self.gone[unit] = True
