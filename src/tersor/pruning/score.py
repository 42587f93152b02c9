"""Score the units of every group with one criterion."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from tersor._check import one_of
from tersor.analysis.evidence import Evidence
from tersor.errors import ArgumentError
from tersor.pruning.criteria.registry import Criterion

#: Score of each unit, by the name of its group.
Scores = Mapping[str, Float[Tensor, "units"]]

#: Ways to make the scores of different groups comparable.
NORMALIZE: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda score: score,
    "mean": lambda score: score / score.mean().clamp_min(torch.finfo(score.dtype).tiny),
    "max": lambda score: score / score.amax().clamp_min(torch.finfo(score.dtype).tiny),
    "norm": lambda score: score / torch.linalg.vector_norm(score).clamp_min(torch.finfo(score.dtype).tiny),
}


def score(
    evidence: Mapping[str, Evidence], criterion: Criterion, *, normalize: str = "none"
) -> dict[str, Tensor]:
    """Return the score of every unit of every group; low scores go first.

    Args:
        evidence: from `collect`, with the fields in `criterion.needs`.
        criterion: how to score.
        normalize: divide the scores of each group by nothing (`none`), their `mean`, `max` or `norm`
            (the layer-wise L2 normalization of Molchanov et al. 2017).

    Raises:
        ArgumentError: if there is no evidence, or a field is missing.

    Example:
        >>> from tersor.pruning.criteria.random import Random
        >>> score({"fc": Evidence("fc", 2, ())}, Random())["fc"].shape
        torch.Size([2])
    """
    rescale = NORMALIZE[one_of("normalize", normalize, NORMALIZE)]
    if not evidence:
        raise ArgumentError(
            "No group of this model can be pruned. `tersor.groups(model, inputs)` lists them with the reasons; "
            "axes with one index are not listed."
        )
    return {name: rescale(criterion.score(found)) for name, found in evidence.items()}


def shapes(evidence: Mapping[str, Evidence]) -> dict[str, str]:
    """Return the signature of each group: pass it as `scopes` to rank only groups that do the same work.

    Source:
        Fang et al., Isomorphic Pruning for Vision Models, ECCV 2024.
    """
    return {name: found.shape for name, found in evidence.items()}
