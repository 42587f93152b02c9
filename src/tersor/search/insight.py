"""What a report tells beyond the search: measured once, at the end, and never at the price of the result."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from tersor.analysis.facts import facts
from tersor.exporting.artefact import Artefact
from tersor.graph.structure import Graph
from tersor.graph.trace import trace
from tersor.loading.onnx.graph_model import GraphModel
from tersor.measurement.result import Measurement
from tersor.measurement.roofline import distance
from tersor.measurement.roofline import roofline as measured_limits
from tersor.reporting.details import Operator, Phase, Roofline, RooflinePoint, Slice
from tersor.search.candidate import Candidate
from tersor.search.run import Run
from tersor.search.sensitivity import Noise, layer_sensitivity, produced_by

#: Most classes that a table of slices lists, and the time that sensitivity may take, seconds.
_SLICES, _SENSITIVITY_S = 100, 15.0
#: Share of what is left of the budget that may go into the report.
_SHARE = 0.2
_LOGGED = re.compile(r"\s*(?P<seconds>[\d.]+) s  (?P<phase>\w+)")
#: Phase of the log -> what it is called in a report; the final measurement says nothing until it is over.
_PHASES = {
    "data": "reading the data",
    "baseline": "original and free baselines",
    "candidate": "making candidates",
    "training": "making candidates",
    "measure": "measuring candidates",
    "certify": "certification",
}
_LAST = "measuring the answer"

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Insight:
    """What was learnt about the run after its end.

    Attributes:
        sensitivity: for each layer what the outputs lose when it alone is changed, by method.
        reasons: for each layer why it cannot be cut; empty text where it can.
        operators: how many of each kind the files of original and answer hold.
        slices: quality of each class on the search split, original and answer.
        roofline: the limits of the machine, and where original and answer stand.
        phases: time by phase.
        omitted: parts that could not be made, and why.
    """

    sensitivity: Noise = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    operators: tuple[Operator, ...] = ()
    slices: tuple[Slice, ...] = ()
    roofline: Roofline | None = None
    phases: tuple[Phase, ...] = ()
    omitted: tuple[str, ...] = ()


def look(run: Run, answer: Candidate, log: Path | None) -> Insight:
    """Return what a report tells beyond the search.

    Args:
        run: the search.
        answer: what is shipped.
        log: the log of the search, for the time of its phases.
    """
    omitted: list[str] = []
    left_s = run.clock.remaining_s
    seconds = max(0.0, min(_SENSITIVITY_S, _SHARE * left_s))

    def attempt(what: str, make: Callable[[], Found], otherwise: Found) -> Found:
        try:
            return make()
        except Exception as error:  # a part of the report must not cost the result
            omitted.append(f"{what}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            return otherwise

    layered = not isinstance(run.task.model, GraphModel)
    graph = attempt("layers", lambda: trace(run.task.model, run.task.inputs), None) if layered else None
    noise: Noise = {}
    if graph is not None and seconds > 1.0:
        noise = attempt("sensitivity", lambda: layer_sensitivity(run.task, graph, seconds=seconds), noise)
    return Insight(
        sensitivity=noise,
        reasons={} if graph is None else _reasons(graph),
        operators=attempt("operators", lambda: operators(run.base.artefact, answer.artefact), ()),
        slices=attempt("slices", lambda: slices(run, answer), ()),
        roofline=attempt("roofline", lambda: _roofline(run, answer), None) if left_s > 5.0 else None,
        phases=attempt("phases", lambda: phases(log), ()),
        omitted=tuple(omitted),
    )


def _reasons(graph: Graph) -> dict[str, str]:
    return {layer: group.reason for group in graph.groups for layer in produced_by(group)}


def phases(log: Path | None) -> tuple[Phase, ...]:
    """Return the time of each phase: a line of the log tells what the time before it was spent on."""
    if log is None or not log.is_file():
        return ()
    total: dict[str, float] = {}
    before = 0.0
    for line in log.read_text(encoding="utf-8").splitlines():
        match = _LOGGED.match(line)
        if match:
            now, name = float(match["seconds"]), _PHASES.get(match["phase"], _LAST)
            total[name] = total.get(name, 0.0) + max(0.0, now - before)
            before = now
    return tuple(Phase(name=name, seconds=seconds) for name, seconds in total.items() if seconds >= 0.05)


def operators(base: Artefact | None, answer: Artefact | None) -> tuple[Operator, ...]:
    """Count the operators of two ONNX files, the most frequent first; empty for files of another kind."""
    if base is None or answer is None or {base.path.suffix, answer.path.suffix} != {".onnx"}:
        return ()
    before, after = (Counter(_operators(file.path)) for file in (base, answer))
    names = sorted(before | after, key=lambda name: (-max(before[name], after[name]), name))
    return tuple(Operator(name=name, before=before[name], after=after[name]) for name in names)


def _operators(path: Path) -> list[str]:
    import onnx

    return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]


def slices(run: Run, answer: Candidate) -> tuple[Slice, ...]:
    """Return the quality of each class on the search split, before and after.

    Only for metrics with a score for each sample, and data with one class a sample.
    """
    before, after = run.base.quality, answer.quality
    if answer is run.base or before is None or after is None or before.scores is None or after.scores is None:
        return ()
    targets = [batch.target for batch in run.task.search.batches(256)]
    known = [
        target
        for target in targets
        if target is not None and target.dim() == 1 and not target.is_floating_point()
    ]
    if len(known) != len(targets) or before.ids != after.ids:
        return ()
    labels = torch.cat(known)
    classes = labels.unique()
    if not 2 <= len(classes) <= _SLICES or len(labels) != len(before.scores):
        return ()
    sign = 1.0 if run.task.metric.higher_is_better else -1.0
    return tuple(
        Slice(
            name=f"class {int(label)}",
            samples=int((labels == label).sum()),
            before=sign * float(before.scores[labels == label].mean()),
            after=sign * float(after.scores[labels == label].mean()),
        )
        for label in classes
    )


def _roofline(run: Run, answer: Candidate) -> Roofline | None:
    """Place original and answer under the limits of this machine; None where the answer was not measured."""
    speed = answer.speed
    if speed is None or answer.model is None:
        return None
    limits = measured_limits(run.request.threads)
    plain = answer.float_model or answer.model
    points = (
        _point(run, "original", run.task.model, speed.base, integer=False),
        _point(run, answer.name, plain, speed.candidate, integer=answer.float_model is not None),
    )
    return Roofline(
        macs_per_s=limits.multiply_adds_per_s,
        bytes_per_s=limits.bytes_per_s,
        int8_macs_per_s=limits.int8_multiply_adds_per_s,
        points=points,
    )


def _point(run: Run, name: str, model: nn.Module, measured: Measurement, *, integer: bool) -> RooflinePoint:
    limits = measured_limits(measured.threads)
    found = distance(facts(model, run.task.inputs), measured, limits, integer=integer)
    return RooflinePoint(
        name=name,
        macs_per_byte=found.macs_per_byte,
        macs_per_s=found.macs_per_s,
        limit_s=found.limit_s,
        share=found.share,
        bound=found.bound,
    )
