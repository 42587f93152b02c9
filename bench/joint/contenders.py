"""What a row is made smaller by: the joint search, one method alone, or a fixed sequence of three."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bench._events import tell
from bench.joint.rows import Row
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export, open_artefact
from tersor.loading.inputs import Inputs
from tersor.loading.limit import parse_budget, parse_drop
from tersor.measurement.measure import compare
from tersor.measurement.quality import evaluate
from tersor.measurement.race import entrants, run_race
from tersor.quantization.quantize import quantize
from tersor.recovery.arithmetic import quickest
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.settings import Settings
from tersor.search.optimize import optimize
from tersor.search.verbs import prune

#: Methods of each contender that is a search.
SEARCHES = {
    "joint": ("prune", "factorize", "drop", "quantize", "weight_only", "distill"),
    "prune only": ("prune", "distill"),
    "factorize only": ("factorize", "distill"),
    "quantize only": ("quantize", "distill"),
}
SEQUENCE = "fixed sequence"


@dataclass(frozen=True)
class Finish:
    """Where a contender ended.

    Attributes:
        contender: its name.
        speedup: against the best free baseline; 1 if nothing better held.
        low: lower end of its 95 per cent interval.
        high: upper end.
        sealed: quality on the certification samples; None if it was not tested.
        base: that of the original.
        bytes: size of the file.
        answer: the candidate.
        wall_s: seconds that it took.
    """

    contender: str
    speedup: float
    low: float
    high: float
    sealed: float | None
    base: float | None
    bytes: int
    answer: str
    wall_s: float


def search(row: Row, contender: str) -> Finish:
    """Run `tersor.optimize` with the methods of a contender."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = optimize(
            row.model,
            row.data,
            max_drop=row.max_drop,
            budget=row.budget,
            methods=SEARCHES[contender],
            metric=row.metric,
            leave_out_copies=row.shares.leave_out_copies,
            ledger=Path(folder) / "ledger.jsonl",
            on_event=tell,
        )
    wall_s, best = time.monotonic() - began, result.best
    if best is None or best.speed is None or best.artefact is None or best.certificate is None:
        size = result.run.base.artefact
        return Finish(
            contender, 1.0, 1.0, 1.0, None, None, size.size_bytes if size else 0, "original", wall_s
        )
    speed, proof = best.speed, best.certificate
    known = proof.base_quality is not None and proof.evidence is not None
    sealed = proof.base_quality - proof.evidence.estimate if known else None
    return Finish(
        contender,
        speed.ratio,
        speed.low,
        speed.high,
        sealed,
        proof.base_quality,
        best.artefact.size_bytes,
        best.name,
        wall_s,
    )


def rival(model: nn.Module, inputs: Inputs, folder: Path) -> Artefact:
    """Return the file of the fastest free baseline, among the runtimes that searches race."""
    entries = [
        entry
        for runtime in ("onnxruntime", "openvino", "torch")
        for entry in entrants(model, inputs, folder, runtime, threads=(1,))
    ]
    fastest = run_race(entries, inputs, batch=1).fastest.artefact
    assert fastest is not None
    return fastest


def sequence(row: Row, ratio: float = 0.5) -> Finish:
    """Prune half of the multiply-adds, distil for the time there is, round to integers: once, in this order."""
    began = time.monotonic()
    task = row.task()
    budget_s = 0.75 * parse_budget(row.budget)
    evidence = list(task.train.batches(32, shuffle=0, limit=256))
    cut = prune(
        task.model, task.inputs, ratio=ratio, criterion="fisher", batches=evidence, loss=task.loss
    ).model
    start = time.monotonic()
    training = Settings(arithmetic=quickest(task.model, next(task.train.batches(128)).inputs))
    ladder = Ladder(rungs=("norms", "distillation"), task_kind=task.kind, batch=128, training=training)
    recover(cut, task.model, task.train, epochs=0.25, ladder=ladder)
    quarter_s = time.monotonic() - start
    left_s = budget_s - (time.monotonic() - began)
    epochs = max(0.25, min(80.0, 0.25 * left_s / quarter_s))
    student = recover(cut, task.model, task.train, epochs=epochs, ladder=ladder).model
    calibration = [part.inputs for part in task.calibration.batches(32, limit=256)]
    small = quantize(student, task.inputs, calibration)
    with tempfile.TemporaryDirectory() as folder:
        base = export(task.model, task.inputs, Path(folder) / "base.onnx")
        file = export(small, task.inputs, Path(folder) / "small.onnx")
        quality = [
            evaluate(open_artefact(f), split, task.metric, batch=256).value
            for f, split in (
                (base, task.search),
                (file, task.search),
                (base, task.certification),
                (file, task.certification),
            )
        ]
        higher = task.metric.higher_is_better
        floor = parse_drop(row.max_drop).floor(quality[0], higher)
        held = quality[1] >= floor if higher else quality[1] <= floor
        speed = compare(rival(task.model, task.inputs, Path(folder)), file, task.inputs, batch=1)
    wall_s = time.monotonic() - began
    if not held:
        return Finish(
            SEQUENCE, 1.0, 1.0, 1.0, quality[3], quality[2], file.size_bytes, "missed the limit", wall_s
        )
    name = f"prune {ratio:.0%}, distil {epochs:.3g} passes, int8"
    return Finish(
        SEQUENCE, speed.ratio, speed.low, speed.high, quality[3], quality[2], file.size_bytes, name, wall_s
    )
