"""Apply a Plan: a new module of the same class, smaller; the given one stays as it is."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tersor.errors import PlanError
from tersor.graph.integers import Attribute, write_attribute
from tersor.graph.solve import close as close_kept
from tersor.graph.solve import solve
from tersor.graph.structure import Graph
from tersor.graph.trace import named_tensors
from tersor.planning.plan import Cut, Drop, Factorize, Mask, Plan, Quantize
from tersor.surgery.drop import drop
from tersor.surgery.factorize import factorize
from tersor.surgery.mask import hold
from tersor.surgery.sizes import layer_sizes


@dataclass(frozen=True, slots=True)
class Applied:
    """A model that a plan made.

    Attributes:
        model: the new module; it shares no memory with the original.
        changed: attributes that got a new value, by dotted name, with the old and the new one.
    """

    model: nn.Module
    changed: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def apply(model: nn.Module, plan: Plan, graph: Graph) -> Applied:
    """Return a deep copy of `model` with the plan carried out.

    Cuts come first and together, then the other edits in their order. The copy has the class, ties,
    hooks, devices, dtypes, `requires_grad` and mode of the original; gradients are not copied.

    Args:
        model: the model that `graph` was traced from; it is not changed.
        plan: edits. `Quantize` is not among those carried out here.
        graph: `trace(model, inputs)`.

    Raises:
        PlanError: if an edit names what the model has not, must stay, or does not fit the others.

    Example:
        >>> from tersor.graph.trace import trace
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> graph = trace(model, (torch.zeros(1, 4),))
        >>> applied = apply(model, Plan((Cut("0", (1, 5)),)), graph)
        >>> applied.model
        Sequential(
          (0): Linear(in_features=4, out_features=2, bias=True)
          (1): ReLU()
          (2): Linear(in_features=2, out_features=2, bias=True)
        )
    """
    if plan.of(Quantize):
        raise PlanError(
            "Surgery does not quantize. Apply the other edits, then give the model that comes out to `tersor.quantize`."
        )
    kept = kept_units(plan)
    values = solve(graph, kept)
    made = _cut(model, graph, kept)
    changed = {**_set_attributes(made, values, graph), **set_layer_sizes(model, made)}
    for edit in plan.edits:
        match edit:
            case Factorize(layer, rank):
                factorize(made, layer, rank)
            case Drop(block):
                drop(made, block, graph.blocks, graph.branches)
            case Mask(parameter, pattern):
                hold(made, parameter, pattern)
            case _:
                pass
    return Applied(made, changed)


def close(plan: Plan, graph: Graph, scores: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan with cuts that keep the fewest further units needed for the code's sizes to fit.

    Args:
        plan: any plan.
        graph: the traced model.
        scores: for groups by name, a value per unit; units of higher value come back first.

    Raises:
        PlanError: if a cut names what the model has not, or what must stay.
    """
    kept = close_kept(graph, kept_units(plan), scores)
    cuts = tuple(Cut(name, keep) for name, keep in kept.items())
    return Plan(cuts + tuple(edit for edit in plan.edits if not isinstance(edit, Cut)))


def kept_units(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the kept units that a plan's cuts give by group.

    Raises:
        PlanError: if two cuts name one group.
    """
    kept: dict[str, tuple[int, ...]] = {}
    for cut in plan.of(Cut):
        if cut.group in kept:
            raise PlanError(f"The plan cuts group {cut.group!r} twice. Give one cut per group.")
        kept[cut.group] = cut.keep
    return kept


def _cut(model: nn.Module, graph: Graph, kept: Mapping[str, Any]) -> nn.Module:
    """Return a deep copy in which every tensor holds its kept indices only; equal tensors stay one."""
    removed = graph.removed(kept)
    tensors = named_tensors(model)
    memo: dict[int, Any] = {
        id(tensor): like(tensor, _kept_part(graph, name, tensor, removed)) for name, tensor in tensors.items()
    }
    return copy.deepcopy(model, memo)


def _kept_part(graph: Graph, name: str, tensor: Tensor, removed: np.ndarray) -> Tensor:
    part = tensor.detach()
    for axis, size in enumerate(tensor.shape):
        extent = graph.extents.get((name, axis))
        if extent is not None and extent.size != size:
            raise PlanError(
                f"The graph was traced from another model: axis {axis} of {name!r} has {size} indices here and "
                f"{extent.size} there. Trace this model."
            )
        if extent is not None and extent.slots and not (stays := extent.kept(removed)).all():
            part = part.index_select(axis, torch.from_numpy(stays.nonzero()[0]).to(part.device))
    return part


def like(tensor: Tensor, value: Tensor) -> Tensor:
    """Return a parameter or buffer like `tensor` that holds `value` in memory of its own."""
    owned = value.clone(memory_format=torch.preserve_format)
    if not isinstance(tensor, nn.Parameter):
        return owned.requires_grad_(tensor.requires_grad)
    made = nn.Parameter(owned, requires_grad=tensor.requires_grad)
    for key, value in vars(tensor).items():
        setattr(made, key, value)
    return made


def _set_attributes(
    model: nn.Module, values: Mapping[Attribute, int], graph: Graph
) -> dict[str, tuple[int, int]]:
    modules = dict(model.named_modules())
    for key, value in values.items():
        write_attribute(modules[key.module], key.path, value)
    return {str(key): (graph.attributes[key], value) for key, value in values.items()}


def set_layer_sizes(before: nn.Module, after: nn.Module) -> dict[str, tuple[int, int]]:
    """Set the sizes that torch's own layers keep for show alone."""
    changed, old = {}, dict(before.named_modules())
    for name, module in after.named_modules():
        held = vars(old[name])
        sizes = {key: size for key, size in layer_sizes(module).items() if isinstance(held.get(key), int)}
        vars(module).update(sizes)
        changed |= {f"{name}.{key}".lstrip("."): (held[key], n) for key, n in sizes.items() if held[key] != n}
    return changed
