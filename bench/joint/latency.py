"""Predicted against measured latency of whole models: fitted to some random plans, tried on others."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.joint.rows import Row
from tersor.errors import MeasurementError
from tersor.exporting.export import export
from tersor.graph.trace import trace
from tersor.measurement.measure import measure_all
from tersor.planning.cost_model import features, fit
from tersor.planning.space import CUT
from tersor.quantization.quantize import quantize
from tersor.search.harm import space_of
from tersor.search.rehearse import designs
from tersor.search.thinned import thinned

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


def predict(row: Row, precision: str) -> Errors:
    """Time thinned copies of one file, fit to the first part of them, and predict the rest."""
    task = row.task()
    graph = trace(task.model, task.inputs)
    zeros = {group.name: torch.zeros(group.size) for group in graph.groups if group.prunable}
    space = space_of(task, task.model, graph, zeros, (), (CUT,))
    calibration = [part.inputs for part in task.calibration.batches(32, limit=64)]
    model = (
        task.model
        if precision == "float"
        else quantize(task.model, task.inputs, calibration, scheme=precision)
    )
    wanted = [space.left(d) for d in (*designs(space, FITTED, 0), *designs(space, HELD_OUT, 1))]
    with tempfile.TemporaryDirectory() as folder:
        whole = export(model, task.inputs, Path(folder) / "whole.onnx")
        files = [
            thinned(whole, graph, left.kept, Path(folder) / f"{index}.onnx")
            for index, left in enumerate(wanted)
        ]
        results = measure_all(whole, files, task.inputs, seconds=0.6, batch=1, launches=2)
    known = [(features(space.anatomy, left, precision), r) for left, r in zip(wanted, results, strict=True)]
    base_s = next(r.base.median_s for _, r in known if not isinstance(r, MeasurementError))
    timed = [(row_, base_s / r.ratio) for row_, r in known if not isinstance(r, MeasurementError)]
    fitted = fit([row_ for row_, _ in timed[:FITTED]], [seconds for _, seconds in timed[:FITTED]])
    errors = np.array([abs(fitted(row_) / seconds - 1) for row_, seconds in timed[FITTED:]])
    return Errors(
        row.name,
        precision,
        float(np.median(errors)),
        float(errors.max()),
        int((errors <= 0.05).sum()),
        fitted.error or 0.0,
    )
