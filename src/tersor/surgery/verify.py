"""Verify a plan: the smaller model against the original with the same units excluded."""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tersor.errors import ModelError
from tersor.graph.modes import plain_attention
from tersor.graph.oracle import mask_and_run
from tersor.graph.prove import as_double, relative_error
from tersor.graph.structure import Graph
from tersor.graph.trace import named_tensors, outputs_of
from tersor.loading.inputs import Inputs, as_inputs, call
from tersor.planning.plan import Drop, Edit, Factorize, Mask, Plan, describe
from tersor.surgery.apply import apply, close, kept_units, like
from tersor.surgery.mask import mask_of

#: The largest relative error that rounding explains, by the type that the comparison ran in.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the comparison with the masked original said.

    Attributes:
        error: largest `max |smaller - masked| / max |masked|` over outputs and over the weights tried.
        tolerance: the largest error that passes.
        edits: on failure the fewest edits that fail without the others.
    """

    error: float
    tolerance: float
    edits: tuple[Edit, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the smaller model is the original with those units excluded, to rounding."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        said = f"relative error {self.error:.1e}, tolerance {self.tolerance:.0e}"
        if self.ok:
            return f"exact: {said}"
        return f"wrong: {said}. Leave out: {'; '.join(describe(edit) for edit in self.edits)}"


def verify(model: nn.Module, plan: Plan, graph: Graph, inputs: Inputs, *, seed: int = 0) -> Verdict:
    """Compare the model that a plan makes with the original under masks, on real and on stirred weights.

    Both run in float64 where the model does, else in float32. On failure the plan is halved until the
    fewest edits are left that fail on their own.

    Args:
        model: the original model; it is not changed.
        plan: edits that `apply` accepts.
        graph: `trace(model, inputs)`.
        inputs: example inputs; other shapes than those traced make a stronger check.
        seed: seed of the stirring, and of torch's generator in every pass.

    Raises:
        PlanError: if the plan does not fit the model.
        ModelError: if the original gives values that are not finite.

    Example:
        >>> from tersor.graph.trace import trace
        >>> from tersor.planning.plan import Cut
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> inputs = (torch.randn(3, 4),)
        >>> verify(model, Plan((Cut("0", (1, 5)),)), trace(model, inputs), inputs).ok
        True
    """
    inputs = as_inputs(inputs)
    apply(model, plan, graph)
    error, kind = _error(model, plan, graph, inputs, seed)
    tolerance = TOLERANCE[kind]
    if error <= tolerance:
        return Verdict(error, tolerance)
    return Verdict(error, tolerance, _fault(model, plan, graph, inputs, seed))


@dataclass(frozen=True, slots=True)
class Healed:
    """A plan that verifies.

    Attributes:
        plan: the plan without the edits at fault.
        verdict: its verdict.
        left_out: the edits that were wrong, in the order in which they were found.
    """

    plan: Plan
    verdict: Verdict
    left_out: tuple[Edit, ...] = ()


def heal(model: nn.Module, plan: Plan, graph: Graph, inputs: Inputs, *, seed: int = 0) -> Healed:
    """Verify a plan, and leave out the edits at fault until what remains is exact.

    Args:
        model: the original model; it is not changed.
        plan: edits that `apply` accepts.
        graph: `trace(model, inputs)`.
        inputs: example inputs.
        seed: as for `verify`.

    Raises:
        PlanError: if the plan does not fit the model.
        ModelError: if the original gives values that are not finite.
    """
    left_out: tuple[Edit, ...] = ()
    while not (verdict := verify(model, plan, graph, inputs, seed=seed)).ok and plan.edits:
        left_out += verdict.edits
        plan = close(Plan(tuple(edit for edit in plan.edits if edit not in verdict.edits)), graph)
    return Healed(plan, verdict, left_out)


def _fault(model: nn.Module, plan: Plan, graph: Graph, inputs: Inputs, seed: int) -> tuple[Edit, ...]:
    """Return a smallest part of the plan, by halving, that fails on its own."""
    edits = plan.edits
    while len(edits) > 1:
        middle = len(edits) // 2
        failing = [
            half for half in (edits[:middle], edits[middle:]) if _fails(model, half, graph, inputs, seed)
        ]
        if not failing:
            break
        edits = failing[0]
    return edits


def _fails(model: nn.Module, edits: Sequence[Edit], graph: Graph, inputs: Inputs, seed: int) -> bool:
    error, kind = _error(model, close(Plan(tuple(edits)), graph), graph, inputs, seed)
    return error > TOLERANCE[kind]


def _error(
    model: nn.Module, plan: Plan, graph: Graph, inputs: Inputs, seed: int
) -> tuple[float, torch.dtype]:
    with suppress(RuntimeError, TypeError, ValueError, NotImplementedError):
        return _errors(_Weights(model, torch.float64, seed), plan, graph, as_double(inputs)), torch.float64
    return _errors(_Weights(model, torch.float32, seed), plan, graph, inputs), torch.float32


@dataclass(frozen=True)
class _Weights:
    """Makes the copies that are compared, each when it is needed, so that few are alive at once."""

    model: nn.Module
    dtype: torch.dtype
    seed: int

    def copy(self, *, stirred: bool) -> nn.Module:
        """Return a new copy of the model in evaluation mode."""
        real = (tensor for tensor in named_tensors(self.model).values() if tensor.is_floating_point())
        memo: dict[int, Any] = {id(tensor): like(tensor, tensor.detach().to(self.dtype)) for tensor in real}
        made = copy.deepcopy(self.model, memo).eval()
        if stirred:
            _stir(made, self.seed)
        return made


def _errors(weights: _Weights, plan: Plan, graph: Graph, inputs: Inputs) -> float:
    worst = _compare(weights.copy(stirred=False), plan, graph, inputs, weights.seed)
    if worst is None:
        raise ModelError(
            "The model gives values that are not finite on the example inputs; nothing can be compared. "
            + _blame(weights.model)
        )
    stirred = _compare(weights.copy(stirred=True), plan, graph, inputs, weights.seed)
    return max(worst, stirred or 0.0)


def _blame(model: nn.Module) -> str:
    broken = [name for name, tensor in named_tensors(model).items() if not bool(torch.isfinite(tensor).all())]
    if not broken:
        return "Its weights are finite: try other inputs."
    return f"Weights that hold NaN or infinity: {', '.join(broken[:4])}. Load a checkpoint that is whole."


def _compare(model: nn.Module, plan: Plan, graph: Graph, inputs: Inputs, seed: int) -> float | None:
    """Return the relative error, or None where the reference is not finite. The model's weights are changed."""
    found = _outputs_of_smaller(model, plan, graph, inputs, seed)
    dropped = [edit.block for edit in plan.of(Drop)]
    _thin(model, plan, graph)
    reference = mask_and_run(model, inputs, graph, kept_units(plan), dropped=dropped, seed=seed)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in reference):
        return None
    # A smaller model that does not run, or gives another number of outputs, is wrong beyond measure.
    return relative_error(found, reference) if len(found) == len(reference) else float("inf")


def _outputs_of_smaller(
    model: nn.Module, plan: Plan, graph: Graph, inputs: Inputs, seed: int
) -> list[Tensor]:
    """Return what the smaller model gives; nothing if it does not run."""
    smaller = apply(model, plan, graph).model
    torch.manual_seed(seed)
    with torch.no_grad(), plain_attention():
        try:
            return outputs_of(call(smaller, inputs))
        except Exception:  # the user's code may raise anything when a size is wrong
            return []


def _thin(model: nn.Module, plan: Plan, graph: Graph) -> None:
    """Give weights of full size the values of low-rank and masked ones."""
    tensors, removed = named_tensors(model), graph.removed(kept_units(plan))
    for edit in plan.edits:
        match edit:
            case Factorize(layer, rank):
                _edit_kept(tensors, f"{layer}.weight", graph, removed, lambda w, r=rank: _truncated(w, r))
            case Mask(parameter, pattern):
                _edit_kept(tensors, parameter, graph, removed, lambda w, p=pattern: w * mask_of(w, p))
            case _:
                pass


def _edit_kept(
    tensors: dict[str, Tensor],
    name: str,
    graph: Graph,
    removed: np.ndarray,
    change: Callable[[Tensor], Tensor],
) -> None:
    """Change the part of a tensor that stays."""
    tensor = tensors[name]
    rows = [
        torch.from_numpy(graph.extents[name, axis].kept(removed).nonzero()[0]) for axis in range(tensor.dim())
    ]
    grid = torch.meshgrid(*rows, indexing="ij")
    with torch.no_grad():
        tensor[grid] = change(tensor[grid])


def _truncated(weight: Tensor, rank: int) -> Tensor:
    """Return the projection of a weight on its leading right singular vectors."""
    rows = weight.flatten(1)
    leading = torch.linalg.svd(rows.T, full_matrices=False).U[:, :rank]
    return (rows @ leading @ leading.T).reshape(weight.shape)


def _stir(model: nn.Module, seed: int) -> None:
    """Put noise on every parameter, so that nothing is hidden behind zeros or symmetric values."""
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.is_floating_point() and tensor.numel():
                width = tensor[0].numel() if tensor.dim() > 1 else 100
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
                tensor.add_(noise.to(tensor) / width**0.5)
