"""What stays fixed while a search tries candidates, and the one place where a candidate gets its file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from torch import nn

from tersor.analysis.facts import facts
from tersor.errors import TersorError
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export
from tersor.exporting.files import ending_of, main_file
from tersor.loading.inputs import Inputs
from tersor.loading.task import Task
from tersor.measurement.quality import evaluate
from tersor.measurement.result import Comparison
from tersor.quantization.hardware import Scheme, detect, scheme_for
from tersor.recovery.arithmetic import PLAIN, Arithmetic
from tersor.search.apart import opening_apart
from tersor.search.candidate import Candidate
from tersor.search.captures import Captures
from tersor.search.clock import Clock
from tersor.search.ending import Ending
from tersor.search.events import Event, silent
from tersor.search.executors import Executor, Local
from tersor.search.guard import OutOfMemory, OutOfTime, watched
from tersor.search.journal import Journal
from tersor.search.outcome import Fate
from tersor.search.request import Request

T = TypeVar("T")
#: Makes a candidate of one that has only a name.
Build: TypeAlias = Callable[[Candidate], Candidate]

#: Samples per call when a file is evaluated; large enough to be quick, small enough for any memory.
EVALUATION_BATCH = 256
#: Seconds that one call of a file on a batch may take before its runtime counts as hung.
PATIENCE_S = 300.0


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
        journal: where candidates are written as soon as they are made.
        base: the original model as a file of the target runtime.
        rival: the fastest free baseline, which a candidate has to beat: the original in its best runtime and settings.
        baselines: every free baseline with its speed against `base`.
        margin: largest loss of quality, in the unit of the metric.
        floor: worst quality that is allowed.
        ending: what the end of the search will take.
        executor: where the model work of candidates is done.
        arithmetic: how trainings of networks in floating point compute.
        target_because: how the target was chosen, in a sentence; empty where it was named.
        captures: the graph that integer twins begin from.
    """

    task: Task
    request: Request
    clock: Clock
    journal: Journal
    base: Candidate
    rival: Artefact
    baselines: tuple[Baseline, ...]
    margin: float
    floor: float
    ending: Ending = field(default_factory=Ending)
    executor: Executor = field(default_factory=Local, repr=False)
    arithmetic: Arithmetic = PLAIN
    target_because: str = ""
    captures: Captures = field(default_factory=Captures, repr=False)

    def __getstate__(self) -> dict[str, object]:
        # What travels to a worker does its work there, and has nobody to tell.
        return self.__dict__ | {"request": replace(self.request, listen=silent), "executor": Local()}

    @property
    def rivals(self) -> tuple[Artefact, ...]:
        """What a candidate has to beat in each target: the fastest free baseline, and the original in the others."""
        return (self.rival, *self.base.others)

    def say(self, phase: str, text: str) -> None:
        """Tell the listener."""
        self.request.listen(Event(phase, text))

    def drop(self, candidate: Candidate) -> float:
        """Return the loss of quality of `candidate` against the base on the search split; positive is worse."""
        assert candidate.quality is not None
        assert self.base.quality is not None
        loss = self.base.quality.value - candidate.quality.value
        return loss if self.task.metric.higher_is_better else -loss


def trains(run: Run) -> bool:
    """Return whether candidates are trained: there are samples for it, and `distill` is among the methods."""
    return len(run.task.train) > 0 and "distill" in run.request.methods


def codes_for(run: Run, kind: str) -> Scheme:
    """Return the integers of this kind that this processor and the runtime that the file is for compute."""
    found, usual = (scheme_for(detect(), kind, places) for places in (run.request.rounds_as, "onnxruntime"))
    return replace(found, weight=usual.weight, reason=usual.reason)  # no kernel of any target may overflow


def calibration_inputs(task: Task, samples: int = 256, batch: int = 32) -> list[Inputs]:
    """Return the first batches of inputs of the calibration split."""
    return [part.inputs for part in islice(task.calibration.batches(batch), max(1, samples // batch))]


def with_file(
    candidate: Candidate, task: Task, folder: Path, request: Request, *, patience_s: float = 300.0
) -> Candidate:
    """Return `candidate` exported for every target, with the worst quality of these files on the search split.

    A file is opened and run in a process of its own, so that a crash or a hang of the runtime is an error here.

    Args:
        candidate: with its model.
        task: the data and the metric.
        folder: where the file goes.
        request: target and threads.
        patience_s: seconds that one call of the file may take.

    Raises:
        ExportError: if it cannot be exported, or the file disagrees with the model.
        MeasurementError: if the file cannot be run.
    """
    assert candidate.model is not None
    with opening_apart(threads=request.threads, patience_s=patience_s) as opened:
        files = [
            export(candidate.model, task.inputs, folder / file_name(target, request), target, opened=opened)
            for target in request.targets
        ]
        found = [evaluate(opened(file), task.search, task.metric, batch=EVALUATION_BATCH) for file in files]
    worst = min(found, key=lambda quality: quality.value * (1 if task.metric.higher_is_better else -1))
    return replace(candidate, artefact=files[0], others=tuple(files[1:]), quality=worst)


def file_name(target: str, request: Request) -> str:
    """Return how the file for `target` is called; the first target's is the main one."""
    return main_file(target) if target == request.target else f"model.{target}{ending_of(target)}"


def counted(candidate: Candidate, model: nn.Module, inputs: Inputs) -> Candidate:
    """Return `candidate` with the parameters and multiply-adds of `model`, a float network."""
    costs = facts(model, inputs)
    return replace(candidate, parameters=costs.parameters, macs=costs.macs)


def placed(run: Run, work: Sequence[Callable[[], T]]) -> list[Callable[[], T]]:
    """Begin pieces of work wherever the search does its work; return, in their order, how to wait for each.

    Each draws its random numbers from the seed and leaves those of others alone, so that its result does not depend on
    where and in which order the work is done.
    """
    alone = [partial(_alone, run.request.seed, piece) for piece in work]
    return run.executor.begin(alone, seconds=max(0.0, run.clock.left_s), most_bytes=run.request.max_memory)


def _alone(seed: int, work: Callable[[], T]) -> T:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return work()


def attempt(run: Run, blank: Candidate, build: Build) -> Candidate:
    """Return what `build` makes of `blank`, exported, evaluated and written down.

    A search that goes on takes from its journal what it had made before; failures are tried again. Whatever fails,
    crashes, or takes more time or memory than there is becomes a failed candidate with its reason, never a lost run.
    """
    known = run.journal.recall(blank.name, run.task)
    if known is not None and known.fate is not Fate.FAILED:
        run.say("candidate", f"{known.name}: made before")
        return known
    if run.journal.killed_by(blank.name):
        return _failed(run, blank, "the process ended twice while this was made")
    torch.manual_seed(run.request.seed)
    folder = run.journal.begin(blank.name)
    try:
        with watched(max(0.0, run.clock.left_s), run.request.max_memory, run.executor.processes):
            done = with_file(build(blank), run.task, folder, run.request, patience_s=PATIENCE_S)
    except OutOfTime as reason:
        run.say("candidate", f"{blank.name}: given up ({reason})")
        run.journal.forget(blank.name)
        return replace(blank, fate=Fate.FAILED, reason=str(reason))
    except (Exception, OutOfMemory) as error:
        kind = "" if isinstance(error, TersorError | OutOfMemory) else f"{type(error).__name__}: "
        return _failed(run, blank, kind + (str(error).strip().partition("\n")[0] or "no reason given"))
    assert done.quality is not None
    value, metric = done.quality.value, run.task.metric.name
    kept = run.journal.keep(done, run.task, run.clock.elapsed_s)
    run.say("candidate", f"{kept.name}: {metric} {value:.4f} on search data (limit {run.floor:.4f})")
    return kept


def _failed(run: Run, blank: Candidate, reason: str) -> Candidate:
    run.say("candidate", f"{blank.name}: failed ({reason})")
    failed = replace(blank, fate=Fate.FAILED, reason=reason)
    return run.journal.keep(failed, run.task, run.clock.elapsed_s)
