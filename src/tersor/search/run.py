"""What stays fixed while a search tries candidates, and the one place where a candidate gets its file."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from tersor.analysis.facts import facts
from tersor.errors import TersorError
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export, open_artefact
from tersor.loading.inputs import Inputs
from tersor.loading.task import Task
from tersor.measurement.quality import evaluate
from tersor.measurement.result import Comparison
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.events import Event
from tersor.search.outcome import Fate
from tersor.search.request import Request

#: Samples per call when a file is evaluated; large enough to be quick, small enough for any memory.
EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True)
class Baseline:
    """The original model in a runtime and setting that cost nothing.

    Attributes:
        name: runtime and setting.
        artefact: its file.
        speed: how it runs against the base; None for the base itself, or where it could not run.
        reason: why it could not run; empty if it did.
    """

    name: str
    artefact: Artefact
    speed: Comparison | None = None
    reason: str = ""


@dataclass(frozen=True)
class Run:
    """One search: the task, the request, and the base that everything is compared with.

    Attributes:
        task: model, data, metric.
        request: what was asked for.
        clock: time.
        folder: where files of candidates are written.
        base: the original model as a file of the target runtime.
        rival: the fastest free baseline, which a candidate has to beat: the original in its best runtime and settings.
        baselines: every free baseline with its speed against `base`.
        margin: largest loss of quality, in the unit of the metric.
        floor: worst quality that is allowed.
    """

    task: Task
    request: Request
    clock: Clock
    folder: Path
    base: Candidate
    rival: Artefact
    baselines: tuple[Baseline, ...]
    margin: float
    floor: float

    def say(self, phase: str, text: str) -> None:
        """Tell the listener."""
        self.request.listen(Event(phase, text))

    def drop(self, candidate: Candidate) -> float:
        """Return the loss of quality of `candidate` against the base on the search split; positive is worse."""
        assert candidate.quality is not None
        assert self.base.quality is not None
        loss = self.base.quality.value - candidate.quality.value
        return loss if self.task.metric.higher_is_better else -loss


def calibration_inputs(task: Task, samples: int = 256, batch: int = 32) -> list[Inputs]:
    """Return the first batches of inputs of the calibration split."""
    return [part.inputs for part in islice(task.calibration.batches(batch), max(1, samples // batch))]


def with_file(candidate: Candidate, task: Task, folder: Path, *, target: str, threads: int) -> Candidate:
    """Return `candidate` exported for `target`, with the quality of that file on the search split.

    Raises:
        ExportError: if it cannot be exported, or the file disagrees with the model.
    """
    assert candidate.model is not None
    path = folder / f"{candidate.name.replace(' ', '_').replace('%', '')}.onnx"
    artefact = export(candidate.model, task.inputs, path, target)
    session = open_artefact(artefact, threads=threads)
    quality = evaluate(session, task.search, task.metric, batch=EVALUATION_BATCH)
    return replace(candidate, artefact=artefact, quality=quality)


def counted(candidate: Candidate, model: nn.Module, inputs: Inputs) -> Candidate:
    """Return `candidate` with the parameters and multiply-adds of `model`, a float network."""
    costs = facts(model, inputs)
    return replace(candidate, parameters=costs.parameters, macs=costs.macs)


def attempt(run: Run, blank: Candidate, build: Callable[[Candidate], Candidate]) -> Candidate:
    """Return what `build` makes of `blank`, exported and evaluated; a failure is a failed candidate, not a lost run."""
    torch.manual_seed(run.request.seed)
    try:
        built = build(blank)
        done = with_file(built, run.task, run.folder, target=run.request.target, threads=run.request.threads)
    except (TersorError, RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        run.say("candidate", f"{blank.name}: failed ({reason})")
        return replace(blank, fate=Fate.FAILED, reason=reason)
    assert done.quality is not None
    metric = run.task.metric.name
    run.say(
        "candidate", f"{done.name}: {metric} {done.quality.value:.4f} on search data (limit {run.floor:.4f})"
    )
    return done
