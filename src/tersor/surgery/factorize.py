"""Factorize a layer: two layers of a small inner size in place of one, by truncated SVD."""

import torch
from torch import Tensor, nn

from tersor.errors import PlanError


def factorize(model: nn.Module, layer: str, rank: int) -> None:
    """Replace a linear or convolution layer of `model` in place by two layers of inner size `rank`.

    `W = U diag(s) V^T` is cut to the largest `rank` singular values, the best approximation of that rank in
    the Frobenius norm (Eckart and Young, 1936). A convolution of shape (out, in, h, w) becomes one with
    the same kernel into `rank` channels, then one with a 1x1 kernel.

    Raises:
        PlanError: if there is no such layer, it has another type or groups, or `rank` is out of range.
    """
    old = _layer(model, layer)
    full = min(old.weight.shape[0], old.weight[0].numel())
    if not 0 < rank <= full:
        raise PlanError(f"`rank` of {layer!r} must be in 1..{full}, got {rank}.")
    first, second = _factors(old.weight.detach(), rank)
    pair = (
        _two_linear(old, first, second)
        if isinstance(old, nn.Linear)
        else _two_convolutions(old, first, second)
    )
    pair.train(old.training)
    owner, _, leaf = layer.rpartition(".")
    model.get_submodule(owner)._modules[leaf] = pair


def low_rank(weight: Tensor, rank: int) -> Tensor:
    """Return the best approximation of a weight of the given rank, rows against all other axes."""
    first, second = _factors(weight, rank)
    return (second @ first).reshape(weight.shape).to(weight.dtype)


def _layer(model: nn.Module, name: str) -> nn.Linear | nn.Conv2d:
    try:
        found = model.get_submodule(name)
    except AttributeError as error:
        raise PlanError(f"The model has no layer {name!r}.") from error
    if isinstance(found, nn.Linear) or (isinstance(found, nn.Conv2d) and found.groups == 1):
        return found
    raise PlanError(f"Only nn.Linear and ungrouped nn.Conv2d can be factorized; {name!r} is {found}.")


def _factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return (rank, in) and (out, rank) whose product is closest to the weight, the scale shared evenly."""
    u, s, v = torch.linalg.svd(weight.double().flatten(1), full_matrices=False)
    root = s[:rank].sqrt()
    return root[:, None] * v[:rank], u[:, :rank] * root


def _two_linear(old: nn.Linear, first: Tensor, second: Tensor) -> nn.Sequential:
    device, dtype, rank = old.weight.device, old.weight.dtype, first.shape[0]
    inner = nn.Linear(old.in_features, rank, bias=False, device=device, dtype=dtype)
    outer = nn.Linear(rank, old.out_features, bias=old.bias is not None, device=device, dtype=dtype)
    return _filled(old, inner, outer, first, second)


def _two_convolutions(old: nn.Conv2d, first: Tensor, second: Tensor) -> nn.Sequential:
    device, dtype, rank = old.weight.device, old.weight.dtype, first.shape[0]
    inner = nn.Conv2d(
        old.in_channels, rank, old.kernel_size, old.stride, old.padding, old.dilation, bias=False,  # type: ignore[arg-type]  # torch's own tuples
        padding_mode=old.padding_mode, device=device, dtype=dtype,
    )  # fmt: skip
    outer = nn.Conv2d(rank, old.out_channels, 1, bias=old.bias is not None, device=device, dtype=dtype)
    return _filled(old, inner, outer, first, second)


def _filled(
    old: nn.Linear | nn.Conv2d,
    inner: nn.Linear | nn.Conv2d,
    outer: nn.Linear | nn.Conv2d,
    first: Tensor,
    second: Tensor,
) -> nn.Sequential:
    with torch.no_grad():
        inner.weight.copy_(first.reshape(inner.weight.shape))
        outer.weight.copy_(second.reshape(outer.weight.shape))
        if old.bias is not None and outer.bias is not None:
            outer.bias.copy_(old.bias)
    for parameter in (*inner.parameters(), *outer.parameters()):
        parameter.requires_grad_(old.weight.requires_grad)
    return nn.Sequential(inner, outer)
