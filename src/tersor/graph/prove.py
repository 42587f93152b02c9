"""Prove a group: permute its units, and see that the outputs do not move."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from tersor.graph.groups import Group, Member
from tersor.graph.modes import plain_attention
from tersor.graph.trace import named_tensors, outputs_of
from tersor.loading.inputs import Inputs, as_inputs, call, map_tensors


def prove(group: Group, model: nn.Module, inputs: Inputs, *, seed: int = 0) -> float:
    """Permute the units of a group at random in every member, and return the relative error of the outputs.

    `max |f(permuted) - f| / max |f|`, in float64 where the model runs in it. A correct group gives
    rounding errors: about 1e-15 in float64, 1e-6 in float32.

    Args:
        group: a group of `trace(model, inputs)`.
        model: the model; it is not changed.
        inputs: example inputs.
        seed: seed of the permutation, and of torch's generator in both passes.

    Example:
        >>> from tersor.graph.trace import trace
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> inputs = (torch.randn(3, 4),)
        >>> prove(trace(model, inputs).group("0"), model, inputs) < 1e-12
        True
    """
    inputs = as_inputs(inputs)
    order = np.random.default_rng(seed).permutation(group.size)
    original = copy.deepcopy(model).eval()
    permuted = copy.deepcopy(original)
    tensors = named_tensors(permuted)
    with torch.no_grad():
        for member in group.members:
            _permute(tensors[member.tensor], member, order)
    reference, found = run_both(original, permuted, inputs, seed)
    return relative_error(found, reference)


def run_both(
    first: nn.Module, second: nn.Module, inputs: Inputs, seed: int = 0
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs of two models that may be changed, in float64 where both run in it."""
    try:
        found = [_outputs(model.double(), as_double(inputs), seed) for model in (first, second)]
    except (RuntimeError, TypeError, ValueError):
        found = []
    if found and all(bool(torch.isfinite(tensor).all()) for tensor in found[0]):
        return found[0], found[1]
    return _outputs(first.float(), inputs, seed), _outputs(second.float(), inputs, seed)


def as_double(inputs: Inputs) -> Inputs:
    """Return the inputs with real numbers in float64."""
    return map_tensors(lambda t: t.double() if t.is_floating_point() else t, inputs)


def relative_error(found: list[Tensor], reference: list[Tensor]) -> float:
    """Return the largest `max |found - reference| / max |reference|` over pairs of outputs.

    Infinite where a shape differs, or where either holds a value that is not finite.
    """
    worst = 0.0
    for one, other in zip(found, reference, strict=True):
        if one.shape != other.shape or not (torch.isfinite(one).all() and torch.isfinite(other).all()):
            return float("inf")
        if one.numel():
            scale = max(float(other.abs().max()), 1e-30)
            worst = max(worst, float((one - other).abs().max()) / scale)
    return worst


def _outputs(model: nn.Module, inputs: Inputs, seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    with torch.no_grad(), plain_attention():
        return outputs_of(call(model, inputs))


def _permute(tensor: Tensor, member: Member, order: np.ndarray) -> None:
    """Put at the n-th index of each unit what stood at the n-th index of the unit that takes its place."""
    units = np.asarray(member.units)
    rows = np.arange(len(units))
    for unit, source in enumerate(order):
        rows[units == unit] = np.flatnonzero(units == source)
    index = torch.from_numpy(rows).to(tensor.device)
    tensor.copy_(tensor.index_select(member.axis, index))
