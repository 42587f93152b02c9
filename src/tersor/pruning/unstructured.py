"""Zeros inside weights, as Mask edits: by threshold, by ratio, N of M, and in blocks.

Where they pay. Stock CPU runtimes multiply zeros like any number, so scattered zeros make no file faster
and only make it compress better. 2:4 pays on GPUs with sparse tensor cores (Ampere and later). Blocks pay
in kernels written for them. For speed in an ordinary runtime cut units instead: `prune_to_budget`.
"""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from tersor._check import fraction, one_of, positive
from tersor.errors import ArgumentError, PlanError
from tersor.planning.plan import Mask, Plan


def mask_threshold(model: nn.Module, threshold: float, *, parameters: Sequence[str] = ()) -> Plan:
    """Plan to set every weight with |w| < `threshold` to zero.

    Args:
        model: read only.
        threshold: positive; in the unit of the weights.
        parameters: names; every parameter of two or more axes if empty.

    Raises:
        ArgumentError: if `threshold` is not positive.
        PlanError: if a name matches no parameter, or no weight lies below the threshold.

    Example:
        >>> print(mask_threshold(nn.Linear(64, 32), 0.1))
        Mask weight: threshold:0.1
    """
    positive("threshold", threshold)
    hit = [
        name for name, weight in _weights(model, parameters).items() if bool((weight.abs() < threshold).any())
    ]
    if not hit:
        raise PlanError(f"No weight lies below {threshold:g}. Raise the threshold, or ask for a `ratio`.")
    return Plan(tuple(Mask(name, f"threshold:{float(threshold)!r}") for name in hit))


def mask_ratio(
    model: nn.Module, ratio: float, *, scope: str = "global", parameters: Sequence[str] = ()
) -> Plan:
    """Plan to set the smallest `ratio` of the weights to zero.

    Args:
        model: read only.
        ratio: fraction set to zero, in [0, 1).
        scope: `global` ranks all weights together, so that layers get different shares; `layer` takes
            `ratio` of each.
        parameters: names; every parameter of two or more axes if empty.

    Raises:
        ArgumentError: if `ratio` is no fraction or `scope` is unknown.
        PlanError: if a name matches no parameter.

    Source:
        Han et al., Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015, section 3.
    """
    fraction("ratio", ratio)
    weights = _weights(model, parameters)
    if one_of("scope", scope, ("global", "layer")) == "layer":
        return Plan(tuple(Mask(name, f"ratio:{float(ratio)!r}") for name in weights))
    threshold = quantile([weight.abs() for weight in weights.values()], ratio)
    return mask_threshold(model, threshold, parameters=parameters) if threshold > 0 else Plan()


def mask_n_of_m(model: nn.Module, n: int = 2, m: int = 4, *, parameters: Sequence[str] = ()) -> Plan:
    """Plan to keep the `n` largest of every `m` consecutive weights along the inputs of each output.

    Weights whose rows `m` does not divide are left as they are.

    Raises:
        ArgumentError: if not `0 < n < m`.
        PlanError: if a name matches no parameter, or `m` divides no weight's rows.

    Example:
        >>> print(mask_n_of_m(nn.Linear(8, 2)))
        Mask weight: 2:4

    Source:
        Mishra et al., Accelerating Sparse Deep Neural Networks, 2021, section 3.
    """
    if not 0 < n < m:
        raise ArgumentError(f"N:M needs 0 < N < M, got {n}:{m}. `2:4` is what GPUs run.")
    fit = [name for name, weight in _weights(model, parameters).items() if weight[0].numel() % m == 0]
    if not fit:
        raise PlanError(f"No weight has rows of a length that {m} divides.")
    return Plan(tuple(Mask(name, f"{n}:{m}") for name in fit))


def mask_blocks(
    model: nn.Module, ratio: float, *, block: tuple[int, int] = (1, 4), parameters: Sequence[str] = ()
) -> Plan:
    """Plan to set the blocks of least L2 norm to zero, `ratio` of each weight's blocks.

    The weight is seen as a matrix of outputs by everything else; weights that blocks do not tile are left
    as they are.

    Args:
        model: read only.
        ratio: fraction of blocks set to zero, in [0, 1).
        block: rows and columns of a block.
        parameters: names; every parameter of two or more axes if empty.

    Raises:
        ArgumentError: if `ratio` is no fraction or a side is not positive.
        PlanError: if a name matches no parameter, or blocks tile no weight.

    Example:
        >>> print(mask_blocks(nn.Linear(8, 2), 0.5))
        Mask weight: block:1x4:0.5

    Source:
        Gray et al., GPU Kernels for Block-Sparse Weights, 2017.
    """
    fraction("ratio", ratio)
    rows, columns = block
    positive("block", min(block))
    weights = _weights(model, parameters)
    fit = [name for name, w in weights.items() if len(w) % rows == 0 and w[0].numel() % columns == 0]
    if not fit:
        raise PlanError(f"Blocks of {rows}x{columns} tile no weight of this model.")
    return Plan(tuple(Mask(name, f"block:{rows}x{columns}:{float(ratio)!r}") for name in fit))


def quantile(values: Sequence[Tensor], ratio: float) -> float:
    """Return the number that the fraction `ratio` of all `values` lies strictly below, ties aside.

    Example:
        >>> quantile([torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])], 0.5)
        3.0
    """
    flat = torch.cat([value.detach().float().flatten() for value in values])
    rank = min(round(ratio * len(flat)), len(flat) - 1)
    return float(flat.kthvalue(rank + 1).values)


def _weights(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    known = {name: value.detach() for name, value in model.named_parameters() if value.is_floating_point()}
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise PlanError(
                f"The model has no parameter {name!r}." + (f" Did you mean {close[0]!r}?" if close else "")
            )
    found = {name: known[name] for name in names} or {name: w for name, w in known.items() if w.dim() > 1}
    if not found:
        raise PlanError("The model has no parameter of two or more axes to mask.")
    return found
