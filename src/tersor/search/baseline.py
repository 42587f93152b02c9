"""The start of a search: the original as a file, its quality, and the free baseline that candidates have to beat."""

import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from tersor.certification.demand import Demand
from tersor.certification.evidence.outcomes import Resampled
from tersor.exporting.artefact import Artefact
from tersor.exporting.feed import feed
from tersor.loading.inputs import to_numpy
from tersor.loading.task import Task
from tersor.measurement.race import entrants, installed, run_race
from tersor.measurement.result import Verdict
from tersor.measurement.runner import Runner
from tersor.planning.plan import Plan
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.ending import PACES, Ending
from tersor.search.events import Event
from tersor.search.guard import OutOfTime, watched
from tersor.search.journal import ENDLESS, Journal, write_whole
from tersor.search.request import Request
from tersor.search.run import EVALUATION_BATCH, Baseline, Run, counted, with_file
from tersor.search.stored import at

#: Name of the original among the candidates.
ORIGINAL = "original"
#: Share of a budget that the race of the free baselines may take.
_RACE_SHARE = 0.25
#: With at least so many seconds left, the race is run as carefully as without a budget.
_UNHURRIED_S = 240.0
#: With fewer, the runtime that starts slowest and runs slowest is not raced.
_HURRIED_S, _SLOW = 180.0, "torch"
#: Compiling takes longer than most searches of a small model; `tersor bench` races it.
_NOT_RACED = ("torch-compile", "aotinductor", "executorch")
#: Draws of a bootstrap whose time tells that of a whole one.
_TRIED_DRAWS = 100
_HERE = Path()
_BASELINES, STORED = "baselines.json", TypeAdapter(tuple[Baseline, ...], config=ENDLESS)


def start(
    task: Task,
    request: Request,
    clock: Clock,
    journal: Journal,
    *,
    admit: Callable[[float], None] = lambda _: None,
) -> Run:
    """Export and evaluate the original, race its free baselines, and fix the limit.

    A search that goes on finds all that in its journal.

    Args:
        task: the original and its data.
        request: what was asked for.
        clock: time.
        journal: where the search is kept.
        admit: called with the margin as soon as it is known; raises where the search would be in vain.

    Raises:
        ExportError: if the original cannot be exported for the target.
        ArgumentError: if the limit would accept any model.
    """
    base = journal.recall(ORIGINAL, task) or _original(task, request, journal)
    assert base.quality is not None
    assert base.artefact is not None
    value, up = base.quality.value, task.metric.higher_is_better
    floor = request.drop.floor(value, up)
    request.listen(Event("baseline", request.drop.words(task.metric.name, value, up)))
    admit(request.drop.margin(value))
    ending = foreseen(base.artefact, task)
    clock.reserve_s = None if clock.budget_s is None else ending.reserve_s(clock.budget_s, 2)
    baselines = _race(task, base.artefact, request, journal, clock)
    rival = _fastest(base.artefact, baselines)
    return Run(
        task, request, clock, journal, base, rival, baselines, request.drop.margin(value), floor, ending
    )


def _original(task: Task, request: Request, journal: Journal) -> Candidate:
    blank = Candidate(name=ORIGINAL, plan=Plan(), model=task.model, why="what everything is compared with")
    base = counted(blank, task.model, task.inputs)
    base = with_file(base, task, journal.begin(ORIGINAL), request)
    return journal.keep(base, task, 0.0)


def foreseen(artefact: Artefact, task: Task) -> Ending:
    """Return what the end of the search will take, from one process of the original that runs one batch."""
    batch = next(task.search.batches(EVALUATION_BATCH))
    begun_s = time.monotonic()
    with Runner(artefact, feed(artefact, task.inputs)[0]) as runner:
        launched_s = time.monotonic()
        outputs = runner(to_numpy(batch.inputs))[0]
        ran_s = time.monotonic() - launched_s
    sealed = len(task.certification)
    return Ending(
        launched_s - begun_s, ran_s * sealed / len(batch.ids) + _redrawn_s(task, outputs, batch.target)
    )


def _redrawn_s(task: Task, outputs: np.ndarray, target: Tensor | None) -> float:
    """Return the seconds in which a metric of a whole set is redrawn for one test, from few draws of one batch."""
    if task.metric.scores is not None or target is None:
        return 0.0
    # As many as there are sealed samples, so that what a call of the metric costs besides them counts once.
    chosen = np.resize(np.arange(len(outputs)), len(task.certification))
    outputs, target = outputs[chosen], target[torch.from_numpy(chosen)]
    whole = Demand(task.metric, 1.0)
    begun_s = time.monotonic()
    try:
        tried = replace(whole, draws=_TRIED_DRAWS).outcomes(outputs, outputs, target)
    except Exception:  # the user's metric may fail on a redrawn batch; its own test says so
        return 0.0
    took_s = time.monotonic() - begun_s
    assert isinstance(tried, Resampled)
    groups = len(tried.jackknife)
    return took_s * (whole.draws + groups) / (_TRIED_DRAWS + groups)


def _race(
    task: Task, base: Artefact, request: Request, journal: Journal, clock: Clock
) -> tuple[Baseline, ...]:
    """Return every free baseline, measured now or in the journal; the base alone if there is no time for others."""
    stored = journal.folder / _BASELINES
    if stored.exists():
        return tuple(_in(journal.folder, entry) for entry in STORED.validate_json(stored.read_bytes()))
    alone = Baseline(f"{base.runtime} (base)", base)
    try:
        with watched(inf if clock.budget_s is None else _RACE_SHARE * clock.budget_s):
            raced = (alone, *_raced(task, base, request, journal, clock))
    except OutOfTime:
        request.listen(
            Event("baseline", "no time in this budget to race other runtimes; the base is the rival")
        )
        raced = (alone,)
    relative = tuple(_in(Path(), entry, journal.folder) for entry in raced)
    write_whole(stored, STORED.dump_json(relative, indent=1).decode())
    return raced


def _in(folder: Path, entry: Baseline, before: Path = _HERE) -> Baseline:
    """Return `entry` whose file lies in `folder` as it lay in `before`."""
    path = folder / entry.artefact.path.relative_to(before)
    return replace(entry, artefact=replace(entry.artefact, path=path))


def _raced(
    task: Task, base: Artefact, request: Request, journal: Journal, clock: Clock
) -> tuple[Baseline, ...]:
    """Measure the original in every runtime and setting at hand against `base`."""
    left_out = _NOT_RACED if clock.remaining_s > _HURRIED_S else (*_NOT_RACED, _SLOW)
    names = [name for name in installed() if name != base.runtime and name not in left_out]
    entries = entrants(
        task.model, task.inputs, journal.folder, base.runtime, threads=(request.threads,), exported=base
    )
    for name in names:
        entries += entrants(task.model, task.inputs, journal.folder, name, threads=(request.threads,))
    pace = PACES[0] if clock.remaining_s > _UNHURRIED_S else PACES[2]
    race = run_race(
        entries, task.inputs, batch=request.call_size, seconds=pace.glance_s, launches=pace.glances
    )
    for entry in race.entries[1:]:
        words = entry.reason if entry.speed is None else f"{entry.speed.ratio:.2f}x of {base.runtime}"
        request.listen(Event("baseline", f"{entry.name}: {words}"))
    return tuple(
        Baseline(entry.name, entry.artefact, entry.speed, entry.reason)
        for entry in race.entries[1:]
        if entry.artefact is not None
    )


def _fastest(base: Artefact, baselines: tuple[Baseline, ...]) -> Artefact:
    """Return the fastest baseline: the base itself unless another is measured faster."""
    faster = [b for b in baselines if b.speed is not None and b.speed.verdict is Verdict.FASTER]
    return max(faster, key=lambda b: b.speed.low if b.speed else 0.0).artefact if faster else base


def relocated(run: Run, folder: Path) -> Run:
    """Return `run` whose journal lies in `folder` now, with all that it holds."""
    before = run.journal.folder
    baselines = tuple(_in(folder, entry, before) for entry in run.baselines)
    rival = next(
        new.artefact for new, old in zip(baselines, run.baselines, strict=True) if old.artefact == run.rival
    )
    return replace(
        run,
        journal=replace(run.journal, folder=folder),
        base=at(run.base, baselines[0].artefact.path.parent),
        rival=rival,
        baselines=baselines,
    )
