"""Masks: which entries of a parameter a pattern keeps."""

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tersor.errors import PlanError
from tersor.surgery.hold import reside

ALLOWED = "`threshold:T`, `ratio:R`, `N:M` as in `2:4`, or `block:ROWSxCOLUMNS:R`"


def hold(model: nn.Module, parameter: str, pattern: str) -> None:
    """Zero a part of a parameter of `model` in place, and hold it at zero while the model trains.

    Raises:
        PlanError: if there is no such parameter, or the pattern is not one.
    """
    tensor = dict(model.named_parameters()).get(parameter)
    if tensor is None:
        raise PlanError(f"The model has no parameter {parameter!r}.")
    reside(model, parameter, mask_of(tensor.detach(), pattern))


def mask_of(weight: Tensor, pattern: str) -> Tensor:
    """Return the 0/1 mask of a pattern.

    `threshold:T` keeps |w| >= T; `ratio:R` drops the fraction R of least magnitude; `N:M` keeps the N largest of
    every M along a row; `block:AxB:R` drops the fraction R of the blocks of A rows and B columns, those of
    least L2 norm. Rows are outputs, columns everything else.

    Raises:
        PlanError: if the pattern is none of these, or does not fit the shape.

    Example:
        >>> mask_of(torch.tensor([[1.0, -3.0, 2.0, 0.5]]), "2:4")
        tensor([[0., 1., 1., 0.]])
        >>> mask_of(torch.tensor([[1.0, -3.0, 2.0, 0.5]]), "block:1x2:0.5")
        tensor([[1., 1., 0., 0.]])
    """
    for form, make in PATTERNS.items():
        found = re.fullmatch(form, pattern)
        if found:
            return make(weight, *map(_number, found.groups()))
    raise PlanError(f"Not a pattern: {pattern!r}. Use {ALLOWED}.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PlanError(f"{text!r} in a pattern is not a number. Use {ALLOWED}.") from error


def _above(weight: Tensor, threshold: float) -> Tensor:
    return (weight.abs() >= threshold).to(weight.dtype)


def _smallest(weight: Tensor, ratio: float) -> Tensor:
    if not 0.0 <= ratio < 1.0:
        raise PlanError(f"The ratio of a mask is a fraction in [0, 1), got {ratio}.")
    mask = torch.ones(weight.numel(), dtype=weight.dtype, device=weight.device)
    count = int(ratio * weight.numel())
    mask[weight.abs().flatten().argsort(stable=True)[:count]] = 0
    return mask.reshape(weight.shape)


def _blocks(weight: Tensor, height: float, width: float, ratio: float) -> Tensor:
    h, w, rows = int(height), int(width), weight.flatten(1)
    if not (h and w) or rows.shape[0] % h or rows.shape[1] % w:
        raise PlanError(
            f"Blocks of {h}x{w} do not tile a weight of {rows.shape[0]} rows and {rows.shape[1]} columns."
        )
    tiles = rows.reshape(rows.shape[0] // h, h, rows.shape[1] // w, w)
    kept = _smallest(tiles.double().square().sum((1, 3)), ratio).to(weight.dtype)
    return kept[:, None, :, None].expand(tiles.shape).reshape(weight.shape)


def _n_of_m(weight: Tensor, kept: float, of: float) -> Tensor:
    n, m = int(kept), int(of)
    rows = weight.flatten(1) if weight.dim() > 1 else weight[None]
    if not 0 < n <= m or rows.shape[1] % m:
        raise PlanError(
            f"`{n}:{m}` needs 0 < N <= M and rows of a length that M divides; this one has {rows.shape[1]}."
        )
    blocks = rows.abs().reshape(-1, m)
    mask = torch.zeros_like(blocks)
    mask.scatter_(1, blocks.argsort(dim=1, descending=True, stable=True)[:, :n], 1.0)
    return mask.reshape(weight.shape)


PATTERNS: dict[str, Callable[..., Tensor]] = {
    r"threshold:(.+)": _above,
    r"ratio:(.+)": _smallest,
    r"(\d+):(\d+)": _n_of_m,
    r"block:(\d+)x(\d+):(.+)": _blocks,
}
