"""Save and load a model that a plan made: JSON and safetensors, no pickle."""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tersor.errors import FolderError, ModelError, PlanError
from tersor.graph.integers import Attribute, read_attribute, write_attribute
from tersor.graph.solve import solve
from tersor.graph.structure import Graph
from tersor.graph.trace import named_tensors
from tersor.planning.plan import Drop, Factorize, Mask, Plan
from tersor.surgery.apply import kept_units, like, set_layer_sizes
from tersor.surgery.drop import drop
from tersor.surgery.factorize import factorize
from tersor.surgery.mask import hold

WEIGHTS, EDITS, VERSION = "model.safetensors", "surgery.json", 1


def save(model: nn.Module, plan: Plan, graph: Graph, folder: str | Path) -> Path:
    """Write a model that `apply(original, plan, graph)` made, trained since or not; return the folder.

    Args:
        model: the smaller model.
        plan: the plan that made it.
        graph: the graph of the original.
        folder: written to; made if missing.

    Raises:
        FolderError: if the folder cannot be written.
    """
    target, dropped = Path(folder), [edit.block for edit in plan.of(Drop)]
    values = solve(graph, kept_units(plan))
    document = {
        "version": VERSION,
        "plan": json.loads(plan.to_json()),
        "attributes": [
            [k.module, list(k.path), v] for k, v in values.items() if not _under(k.module, dropped)
        ],
        "blocks": {block: graph.blocks[block] for block in dropped if block in graph.blocks},
        "branches": {block: graph.branches[block] for block in dropped if block in graph.branches},
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.detach().contiguous().clone() for name, t in named_tensors(model).items()}
        save_file(tensors, target / WEIGHTS)
        (target / EDITS).write_text(json.dumps(document, indent=1))
    except OSError as error:
        raise FolderError(f"Cannot write the model to {target}: {error}.") from error
    return target


def load(factory: Callable[[], nn.Module], folder: str | Path) -> nn.Module:
    """Rebuild a saved model: the factory makes the original architecture, the files say what changed.

    Args:
        factory: returns the original module, as before surgery; its weights do not matter.
        folder: written by `save`.

    Raises:
        FolderError: if the folder holds no saved model.
        ModelError: if the factory makes another model than the one saved.
    """
    document, tensors = _read(Path(folder))
    model = factory()
    plan = Plan.from_json(json.dumps(document["plan"]))
    for edit in plan.edits:
        match edit:
            case Factorize(layer, _):
                factorize(model, layer, _rank(tensors, layer))
            case Drop(block):
                drop(model, block, document["blocks"], document.get("branches", {}))
            case _:
                pass
    made = _with_tensors(model, tensors)
    _set(made, document["attributes"])
    set_layer_sizes(model, made)
    for edit in plan.of(Mask):
        hold(made, edit.parameter, edit.pattern)
    return made


def _under(module: str, blocks: list[str]) -> bool:
    return any(module == block or module.startswith(f"{block}.") for block in blocks)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        document = json.loads((folder / EDITS).read_text())
        tensors = load_file(folder / WEIGHTS)
    except (OSError, json.JSONDecodeError) as error:
        raise FolderError(f"{folder} holds no model saved by tersor: {error}.") from error
    if document.get("version") != VERSION:
        raise FolderError(
            f"{folder / EDITS} has version {document.get('version')}; this tersor reads {VERSION}."
        )
    return document, tensors


def _rank(tensors: Mapping[str, Tensor], layer: str) -> int:
    name = f"{layer}.0.weight"
    if name not in tensors:
        raise ModelError(f"The saved model has no factorized layer {layer!r}.")
    return int(tensors[name].shape[0])


def _with_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a deep copy whose parameters and buffers are the saved ones; equal tensors stay one."""
    held = named_tensors(model)
    if set(held) != set(tensors):
        differ = sorted(set(held) ^ set(tensors))[:4]
        raise ModelError(
            f"The factory makes another model than the one saved: only one of them has {', '.join(differ)}."
        )
    return copy.deepcopy(model, {id(old): like(old, tensors[name]) for name, old in held.items()})


def _set(model: nn.Module, attributes: list[tuple[str, list[str | int], int]]) -> None:
    for name, path, value in attributes:
        try:
            module = model.get_submodule(name)
            old = read_attribute(module, tuple(path))
        except (AttributeError, KeyError, IndexError, TypeError) as error:
            raise ModelError(
                f"The factory's model has no attribute {Attribute(name, tuple(path))}."
            ) from error
        if not isinstance(old, int) or not isinstance(value, int):
            raise PlanError(f"{Attribute(name, tuple(path))} is not an integer.")
        write_attribute(module, tuple(path), value)
