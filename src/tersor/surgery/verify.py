"""Verify a plan: the smaller model against the original with the same units excluded."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tersor.errors import ModelError
from tersor.graph.modes import plain_attention
from tersor.graph.oracle import masked_outputs
from tersor.graph.prove import as_double, relative_error
from tersor.graph.structure import Graph
from tersor.graph.trace import named_tensors, outputs_of
from tersor.loading.inputs import Inputs, as_inputs, call
from tersor.planning.plan import Drop, Edit, Factorize, Mask, Plan, describe
from tersor.surgery.apply import apply, close, kept_units
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
    try:
        return _errors(copy.deepcopy(model).double(), plan, graph, as_double(inputs), seed), torch.float64
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return _errors(copy.deepcopy(model).float(), plan, graph, inputs, seed), torch.float32


def _errors(model: nn.Module, plan: Plan, graph: Graph, inputs: Inputs, seed: int) -> float:
    model.eval()
    worst = _compare(model, plan, graph, inputs, seed)
    if worst is None:
        raise ModelError(
            "The model gives values that are not finite on the example inputs; nothing can be compared. "
            + _blame(model)
        )
    stirred = _compare(_stir(model, seed), plan, graph, inputs, seed)
    return max(worst, stirred or 0.0)


def _blame(model: nn.Module) -> str:
    broken = [name for name, tensor in named_tensors(model).items() if not bool(torch.isfinite(tensor).all())]
    if not broken:
        return "Its weights are finite: try other inputs."
    return f"Weights that hold NaN or infinity: {', '.join(broken[:4])}. Load a checkpoint that is whole."


def _compare(model: nn.Module, plan: Plan, graph: Graph, inputs: Inputs, seed: int) -> float | None:
    """Return the relative error, or None where the reference is not finite."""
    smaller = apply(model, plan, graph).model
    dropped = [edit.block for edit in plan.of(Drop)]
    dense = _dense(model, plan, graph)
    reference = masked_outputs(dense, inputs, graph, kept_units(plan), dropped=dropped, seed=seed)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in reference):
        return None
    torch.manual_seed(seed)
    with torch.no_grad(), plain_attention():
        try:
            return relative_error(outputs_of(call(smaller, inputs)), reference)
        except Exception as error:  # the user's code may raise anything when a size is wrong
            return _crash(error)


def _crash(error: Exception) -> float:
    """A smaller model that does not run is wrong beyond measure."""
    del error
    return float("inf")


def _dense(model: nn.Module, plan: Plan, graph: Graph) -> nn.Module:
    """Return a copy of the original with low-rank and masked weights at full size."""
    made, removed = copy.deepcopy(model), graph.removed(kept_units(plan))
    tensors = named_tensors(made)
    for edit in plan.edits:
        match edit:
            case Factorize(layer, rank):
                _edit_kept(tensors, f"{layer}.weight", graph, removed, lambda w, r=rank: _truncated(w, r))
            case Mask(parameter, pattern):
                _edit_kept(tensors, parameter, graph, removed, lambda w, p=pattern: w * mask_of(w, p))
            case _:
                pass
    return made


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


def _stir(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy with noise on every parameter, so that nothing is hidden behind zeros or symmetric values."""
    made, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for tensor in made.parameters():
            if tensor.is_floating_point() and tensor.numel():
                width = tensor[0].numel() if tensor.dim() > 1 else 100
                noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
                tensor.add_(noise.to(tensor) / width**0.5)
    return made
