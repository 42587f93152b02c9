"""The two factors that keep most of a layer's outputs, on real inputs."""

import copy
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tersor.analysis.collect import input_moments
from tersor.analysis.uses import tensors
from tersor.errors import DataError, PlanError
from tersor.factorization.spectrum import cholesky, weighted
from tersor.loading.task import Batch
from tersor.planning.plan import Factorize, Plan


def factors(
    weight: Float[Tensor, "outputs ..."], rank: int, *, gram: Float[Tensor, "features features"] | None = None
) -> tuple[Float[Tensor, "rank features"], Float[Tensor, "outputs rank"]]:
    r"""Return the factors (first, second) of `rank` whose product is closest to `weight`.

    $$\min_{\operatorname{rank} M \le r} E \|(W - M) x\|^2, \qquad
      M = [W L]_r L^{-1}, \quad L L^T = E[x x^T]$$

    where $[\cdot]_r$ is the truncated SVD. Without `gram`, L is the identity and the distance that of the
    weights. The scale is shared evenly between the factors.

    Args:
        weight: (outputs, ...); every axis but the first counts as features.
        rank: 1 to min(outputs, features).
        gram: E[x x^T] of the features.

    Example:
        >>> weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
        >>> first, second = factors(weight, 1, gram=torch.diag(torch.tensor([1.0, 100.0])))
        >>> (second @ first).round(decimals=2).abs()  # the small weight has the large input
        tensor([[0., 0.],
                [0., 1.]])

    Source:
        Wang et al., SVD-LLM, ICLR 2025, section 3.1; Eckart and Young, 1936.
    """
    u, s, v = torch.linalg.svd(weighted(weight, gram), full_matrices=False)
    root = s[:rank].sqrt()
    first, second = root[:, None] * v[:rank], u[:, :rank] * root
    if gram is not None:
        first = torch.linalg.solve_triangular(cholesky(gram), first, upper=False, left=False)
    return first.to(weight.dtype), second.to(weight.dtype)


def refactor(factorized: nn.Module, original: nn.Module, plan: Plan, batches: Iterable[Batch]) -> nn.Module:
    """Return a copy of `factorized` whose factors are those that keep most of each layer's outputs.

    Neither module is changed.

    Args:
        factorized: what `apply(original, plan, graph)` made; a layer became two, `0` then `1`.
        original: the model before.
        plan: the plan; only its `Factorize` edits matter.
        batches: calibration data; labels are not used.

    Raises:
        PlanError: if the plan factorizes nothing, or `factorized` is not what it gives.
        DataError: if no input of a layer was seen.
    """
    edits = plan.of(Factorize)
    if not edits:
        raise PlanError("The plan factorizes nothing.")
    made = copy.deepcopy(factorized)
    whole, new = tensors(original), dict(made.named_parameters())
    grams = input_moments(
        copy.deepcopy(original).eval(), [f"{e.layer}.weight" for e in edits], batches, gram=True
    )
    for edit in edits:
        name, pair = f"{edit.layer}.weight", (f"{edit.layer}.0.weight", f"{edit.layer}.1.weight")
        if name not in grams:
            raise DataError(f"No input of {edit.layer!r} was seen. Pass batches that reach it.")
        for target, value in zip(pair, factors(whole[name], edit.rank, gram=grams[name]), strict=True):
            if target not in new or new[target].numel() != value.numel():
                raise PlanError(
                    f"`factorized` is not what the plan gives: {target!r} should hold {value.numel()} values."
                )
            with torch.no_grad():
                new[target].copy_(value.reshape(new[target].shape))
    return made
