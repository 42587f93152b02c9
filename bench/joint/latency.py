"""Predicted against measured latency of whole models: fitted to some random plans, tried on others."""

import tempfile
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np
import torch

from bench.joint.rows import Row
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export
from tersor.exporting.files import ending_of
from tersor.graph.trace import trace
from tersor.loading.limit import parse_drop
from tersor.loading.task import Task
from tersor.measurement.measure import measure_all
from tersor.measurement.result import Comparison
from tersor.planning.cost_model import features, fit
from tersor.planning.plan import Plan
from tersor.planning.space import CUT
from tersor.quantization.quantize import quantize_module
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.copies import Copies
from tersor.search.harm import space_of
from tersor.search.journal import Journal
from tersor.search.prices import Seen
from tersor.search.rehearse import designs
from tersor.search.request import Request
from tersor.search.run import Run, calibration_inputs, codes_for

#: Random plans that the model is fitted to, and others that it is tried on.
FITTED, HELD_OUT = 24, 20


@dataclass(frozen=True)
class Errors:
    """How far predictions were off.

    Attributes:
        row: of the benchmark.
        precision: of the files.
        median: median relative error of the plans that were held out.
        most: largest one.
        within: how many were within 5 per cent.
        claimed: the error that the model itself expected, from the plans it was fitted to.
    """

    row: str
    precision: str
    median: float
    most: float
    within: int
    claimed: float


def predict(row: Row, precision: str, runtime: str = "onnxruntime") -> Errors:
    """Time copies of one file, as a search makes them, fit to the first part of them, and predict the rest."""
    timed = timings(row, precision, runtime)
    known, unknown = timed[: FITTED + 1], timed[FITTED + 1 :]
    fitted = fit([seen.amounts for seen in known], [seen.seconds for seen in known])
    errors = np.array([abs(fitted(seen.amounts) / seen.seconds - 1) for seen in unknown])
    return Errors(
        row.name,
        precision,
        float(np.median(errors)),
        float(errors.max()),
        int((errors <= 0.05).sum()),
        fitted.error or 0.0,
    )


def timings(row: Row, precision: str, runtime: str) -> list[Seen]:
    """Return the latencies of the original, of copies with random cuts that a model is fitted to, and of others."""
    task = row.task()
    graph = trace(task.model, task.inputs)
    zeros = {group.name: torch.zeros(group.size) for group in graph.groups if group.prunable}
    space = space_of(task, task.model, graph, zeros, (), (CUT,))
    wanted = [space.left(d) for d in (*designs(space, FITTED, 0), *designs(space, HELD_OUT, 1))]
    with tempfile.TemporaryDirectory() as folder:
        run, whole = _original(task, precision, runtime, Path(folder))
        copies = Copies(run, graph, space.anatomy, {precision: whole}, Path(folder))
        made = copies.thin(wanted).get(precision) or copies.real([(precision, left) for left in wanted], inf)
        files = [file for file, _ in made]
        results = measure_all(whole, files, task.inputs, seconds=0.6, batch=1, launches=2)
    known = [(amounts, r) for (_, amounts), r in zip(made, results, strict=True) if isinstance(r, Comparison)]
    base_s = known[0][1].base.median_s
    original = Seen(features(space.anatomy, space.left(space.origin), precision), base_s)
    return [original, *(Seen(amounts, base_s / result.ratio) for amounts, result in known)]


def _original(task: Task, precision: str, runtime: str, folder: Path) -> tuple[Run, Artefact]:
    """Return the start of a search for a runtime, and the original's file for it in a precision."""
    request = Request(parse_drop(0.02), (runtime,))
    base = Candidate("original", Plan(), model=task.model)
    rival = Artefact(runtime, folder, 0, "")
    run = Run(task, request, Clock(), Journal(folder), base, rival, (), 0.0, 0.0)
    model = task.model
    if precision != "float":
        few = calibration_inputs(task, 64)
        model = quantize_module(model, task.inputs, few, scheme=codes_for(run, precision))
    return run, export(model, task.inputs, folder / f"whole{ending_of(runtime)}", runtime)
