"""A candidate as files, and back: JSON, arrays and safetensors; nothing that runs when it is read."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tersor.errors import ModelError
from tersor.exporting.artefact import Artefact
from tersor.graph.trace import named_tensors, trace
from tersor.loading.inputs import Inputs
from tersor.loading.onnx.graph_model import GraphModel
from tersor.loading.onnx.guard import read_graph
from tersor.loading.task import Task
from tersor.measurement.quality import Quality
from tersor.measurement.result import Comparison
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.hardware import Scheme
from tersor.quantization.model import QuantizedModel
from tersor.quantization.quantize import quantize
from tersor.quantization.recipe import Recipe
from tersor.search.candidate import Candidate
from tersor.search.outcome import Fate
from tersor.surgery.store import load, save

_SCORES, _FLOAT, _INTEGERS, _SCHEME = "scores.npz", "float", "integers.safetensors", "integers.json"
#: Fields of a Candidate that are more than plain values; the others are written as they are.
_SPECIAL = frozenset(
    {
        "plan",
        "model",
        "float_model",
        "artefact",
        "others",
        "quality",
        "speed",
        "fate",
        "certificate",
        "losses",
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a candidate when the finalists are frozen."""

    name: str
    fate: str
    reason: str
    speed: Comparison | None


@dataclass(frozen=True, slots=True)
class Grid:
    """How the integer twin of a network was made."""

    scheme: Scheme
    recipe: Recipe


_GRID = TypeAdapter(Grid)


def verdict_on(candidate: Candidate) -> Verdict:
    """Return what is known of `candidate` as plain data."""
    return Verdict(candidate.name, candidate.fate.name, candidate.reason, candidate.speed)


def judged(candidate: Candidate, verdict: Verdict) -> Candidate:
    """Return `candidate` with what was known of it."""
    return replace(candidate, fate=Fate[verdict.fate], reason=verdict.reason, speed=verdict.speed)


def at(candidate: Candidate, place: Path) -> Candidate:
    """Return `candidate` whose file lies in the folder `place` now."""
    if candidate.artefact is None:
        return candidate
    main, *others = (replace(file, path=place / file.path.name) for file in candidate.files)
    return replace(candidate, artefact=main, others=tuple(others))


def write_candidate(candidate: Candidate, task: Task, place: Path, *, models: bool) -> dict[str, Any]:
    """Write arrays and weights of `candidate` into `place`, where its file already is; return the rest as JSON values.

    Args:
        candidate: made, or failed.
        task: its task.
        place: an existing folder.
        models: whether weights are written.
    """
    quality = candidate.quality
    if quality is not None and quality.scores is not None:
        np.savez(place / _SCORES, scores=quality.scores.numpy(), ids=np.array(quality.ids, dtype=np.int64))
    if models and candidate.model is not None and candidate.plan.edits:
        _write_models(candidate, task, place)
    plain = {f.name: getattr(candidate, f.name) for f in fields(candidate) if f.name not in _SPECIAL}
    return plain | {
        "plan": json.loads(candidate.plan.to_json()),
        "losses": candidate.losses,
        "files": [json.loads(file.to_json()) for file in candidate.files],
        "quality": None if quality is None else {"value": quality.value, "count": quality.count},
        "fate": candidate.fate.name,
    }


def read_candidate(card: Mapping[str, Any], place: Path, task: Task) -> Candidate:
    """Return what `write_candidate` wrote into `place`; of an integer twin only the network in floating point."""
    known = {field.name for field in fields(Candidate)}
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in card.items()
        if name in known - _SPECIAL
    }
    plan = Plan.from_json(json.dumps(card["plan"]))
    files = [Artefact.from_json(json.dumps(file)) for file in card["files"]]
    graph = isinstance(task.model, GraphModel)
    network = task.model if graph else _read_float(plan, task, place)
    integers = bool(plan.of(Quantize))
    made = _read_graph(task.model, files, place) if isinstance(task.model, GraphModel) else None
    found = Candidate(
        **plain,
        plan=plan,
        model=made if graph else None if integers else network,
        float_model=network if integers else None,
        artefact=files[0] if files else None,
        others=tuple(files[1:]),
        quality=_read_quality(card["quality"], place),
        losses=tuple(card["losses"]),
        fate=Fate[card["fate"]],
    )
    return at(found, place)


def with_integers(candidate: Candidate, place: Path, inputs: Inputs, calibration: list[Inputs]) -> Candidate:
    """Return an integer twin that was read back with its module made again from its network in floating point.

    Raises:
        ModelError: if what was written does not fit the module.
    """
    grid = _GRID.validate_json((place / _SCHEME).read_bytes())
    return remade(candidate, grid, load_file(place / _INTEGERS), inputs, calibration)


def remade(
    candidate: Candidate,
    grid: Grid,
    tensors: Mapping[str, Tensor],
    inputs: Inputs,
    calibration: list[Inputs],
) -> Candidate:
    """Return an integer twin with its module made again: placed as `grid` says, with the tensors that it had.

    Raises:
        ModelError: if the tensors do not fit the module.
    """
    assert candidate.float_model is not None
    plan = Plan(candidate.plan.of(Quantize))
    model = quantize(
        candidate.float_model, inputs, calibration, scheme=grid.scheme, plan=plan, recipe=grid.recipe
    )
    held = named_tensors(model)
    if set(held) != set(tensors):
        raise ModelError(f"The weights of {candidate.name} that were kept do not fit its plan.")
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(tensors[name])
    return replace(candidate, model=model)


def _write_models(candidate: Candidate, task: Task, place: Path) -> None:
    """Write the weights: of the network in floating point, and of its integer twin where there is one."""
    edits, network = _float_edits(candidate.plan), candidate.float_model or candidate.model
    assert network is not None
    if edits:
        save(network, Plan(edits), trace(task.model, task.inputs), place / _FLOAT)
    if isinstance(candidate.model, QuantizedModel):
        tensors = named_tensors(candidate.model)
        save_file({name: t.detach().contiguous().clone() for name, t in tensors.items()}, place / _INTEGERS)
        grid = Grid(candidate.model.scheme, candidate.model.recipe)
        (place / _SCHEME).write_bytes(_GRID.dump_json(grid, indent=1))


def _float_edits(plan: Plan) -> tuple:
    return tuple(edit for edit in plan.edits if not isinstance(edit, Quantize))


def _read_float(plan: Plan, task: Task, place: Path) -> nn.Module | None:
    if not _float_edits(plan):
        return task.model
    if not (place / _FLOAT).exists():
        return None
    return load(lambda: copy.deepcopy(task.model), place / _FLOAT).eval()


def _read_graph(original: GraphModel, files: list[Artefact], place: Path) -> GraphModel | None:
    """Return the graph that a candidate is, from its file."""
    if not files:
        return None
    return type(original)(read_graph(place / files[0].path.name), original.why)


def _read_quality(card: Mapping[str, Any] | None, place: Path) -> Quality | None:
    if card is None:
        return None
    if not (place / _SCORES).exists():
        return Quality(card["value"], None, (), card["count"])
    with np.load(place / _SCORES) as stored:
        scores, ids = torch.from_numpy(stored["scores"]), tuple(map(int, stored["ids"]))
    return Quality(card["value"], scores, ids, card["count"])
