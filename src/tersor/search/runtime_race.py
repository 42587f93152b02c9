"""A race of runtimes: the original in floating point and in quick integers, in each, before a search begins."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path

import torch

from tersor.errors import MeasurementError
from tersor.exporting.artefact import Artefact
from tersor.loading.onnx.graph_model import GraphModel
from tersor.loading.task import Batch, Split, Task
from tersor.measurement.measure import measure_all
from tersor.measurement.result import Comparison, Verdict
from tersor.planning.plan import Plan
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.ending import PACES, Ending, Pace
from tersor.search.events import Event, silent
from tersor.search.finalists import Gain, safety
from tersor.search.graphs import graph_kinds, rounded_graph
from tersor.search.guard import Exceeded, OutOfTime, watched
from tersor.search.integers import in_integers, schemes_for
from tersor.search.journal import Journal
from tersor.search.request import Request, installed_targets
from tersor.search.run import Run, attempt, with_file

#: Share of the budget that a race may take, and seconds without one.
SHARE, MOST_S = 0.05, 60.0
#: Part of the time left that a further runtime's file may take: one that is slow to write must not end the race.
_ENTRY = 0.5
#: Samples of the search data on which its files are judged, and of the calibration data that give ranges.
_JUDGING, _CALIBRATING = 512, 64
#: Integers so many standard errors outside of the limit do not count, as the search gives such networks no integers.
_RUINED = -1.0
#: Peaks of memory that differ by less than this factor are taken for equal: they have no interval.
_SPREAD = 1.05
#: How much longer measuring may take than it did before, on a machine that becomes busy.
_SLACK = 1.5
#: What the files are called, after their runtime.
_FLOAT = "floating point"
_KINDS = {
    "static": "static 8-bit integers",
    "dynamic": "dynamic 8-bit integers",
    "int8": "8-bit weights",
    "int4": "4-bit weights",
}


def race_runtimes(request: Request, task: Task, clock: Clock) -> tuple[Candidate, ...]:
    """Return files of the original in every runtime that may be the target, timed in turns with the first.

    Files in floating point are timed as soon as they are made; integers follow in the time that is left, those that
    nearly hold the limit, and then all are timed together. What fails is left out, and said.

    Args:
        request: what was asked for; its targets do not matter.
        task: the original and its data.
        clock: time of the search; the race takes a small share of it.
    """
    few = replace(
        task,
        search=Opening(task.search, _JUDGING, request.seed),
        calibration=Opening(task.calibration, _CALIBRATING, request.seed),
    )
    with tempfile.TemporaryDirectory(prefix="tersor-") as folder, torch.random.fork_rng(devices=[]):
        first, *others = installed_targets()
        race = _Race(request, few, replace(clock), Journal(Path(folder)))
        runs = [race.entered(first)]
        race.clock = Clock(_share_s(clock), reserve_s=0.0)
        runs += [race.entered(other, _ENTRY) for other in others]
        runs = [run for run in runs if run is not None]
        if len(runs) < 2:
            return ()
        originals = [run.base for run in runs]
        glanced = race.glanced(originals)
        rounded = race.in_integers(runs, clock) if glanced else []
        found = race.timed([*originals, *rounded], race.pace(len(runs) + len(rounded))) or glanced
    for file in found:
        race.say(f"{file.name}: {gain_of(file, request.goal).words()} of {found[0].name}")
    return found


def runtime_of(file: Candidate) -> str:
    """Return the runtime that a file is for."""
    assert file.artefact is not None
    return file.artefact.runtime


def gain_of(file: Candidate, goal: str) -> Gain:
    """Return how many times better than the first file of the race a measured one is at the goal."""
    assert file.speed is not None
    if goal == "memory":
        ratio = file.speed.base.peak_bytes / max(1, file.speed.candidate.peak_bytes)
        return Gain(ratio, ratio / _SPREAD**0.5, ratio * _SPREAD**0.5)
    return Gain(file.speed.ratio, file.speed.low, file.speed.high)


@dataclass(frozen=True, slots=True)
class Opening:
    """Some samples of a split, the same ones whenever they are asked for.

    Attributes:
        split: all of them.
        most: how many at most.
        seed: which: the first ones in the order of this seed, as a stored order may hold one class after the other.
    """

    split: Split
    most: int
    seed: int

    @property
    def name(self) -> str:
        """The name of the split."""
        return self.split.name

    def __len__(self) -> int:
        return min(self.most, len(self.split))

    def batches(self, size: int, *, shuffle: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Yield batches of `size` samples; the order is always that of the seed."""
        del shuffle
        most = self.most if limit is None else min(limit, self.most)
        return self.split.batches(size, shuffle=self.seed, limit=most)


@dataclass(slots=True)
class _Race:
    """What the steps of a race share.

    Attributes:
        request: what was asked for.
        task: the original, and the samples on which files are judged.
        clock: the time of the search until the first file is there, as any search needs one; then the race's own.
        journal: where its files are.
        costs: what measuring takes on this machine, once something was measured.
    """

    request: Request
    task: Task
    clock: Clock
    journal: Journal
    costs: Ending = field(default_factory=Ending)

    def say(self, text: str) -> None:
        """Tell the listener."""
        self.request.listen(Event("baseline", text))

    def entered(self, runtime: str, part: float = 1.0) -> Run | None:
        """Return the original in a runtime as the start of a search for it; None, and why, where it is not taken.

        Args:
            runtime: its name.
            part: part of the time left that this may take.
        """
        request = replace(self.request, targets=(runtime,), listen=silent)
        blank = Candidate(f"{runtime}, {_FLOAT}", Plan(), model=self.task.model)
        try:
            with watched(max(0.0, part * self.clock.left_s), request.max_memory):
                made = with_file(blank, self.task, self.journal.begin(blank.name), request)
        except (Exception, Exceeded) as error:  # one that cannot take part has lost
            self.say(f"{blank.name}: not raced ({_first_line(error)})")
            return None
        assert made.quality is not None
        assert made.artefact is not None
        value = made.quality.value
        margin = request.drop.margin(value)
        return Run(self.task, request, self.clock, self.journal, made, made.artefact, (), margin, value)

    def in_integers(self, runs: Sequence[Run], clock: Clock) -> list[Candidate]:
        """Return the original in the kinds of integers that suit each runtime, as many as there is time for.

        Only kinds that every runtime had time for count.

        Args:
            runs: the original in each runtime.
            clock: time of the search, which says whether weights alone are worth rounding.
        """
        wanted = self._wanted(runs, clock)
        made: list[Candidate] = []
        for turn in map(partial(filter, None), zip_longest(*wanted)):
            found: list[Candidate] = []
            pace = PACES[0] if made else PACES[-1]  # a further kind is worth less than measuring with care
            for run, kind in turn:
                files = len(runs) + len(made) + len(found)
                self.clock.reserve_s = _SLACK * self.costs.measuring_s(pace, files)
                found += self._rounded(run, kind)
                if self.clock.left_s <= 0:  # a runtime whose turn did not come would lose by that alone
                    self.say("no time to race more kinds of integers")
                    return made
            made += found
        return made

    def _wanted(self, runs: Sequence[Run], clock: Clock) -> list[list[tuple[Run, str]]]:
        """Return the kinds of integers to try in each runtime, most promising first; none if finding them is slow."""
        try:
            with watched(max(0.0, self.clock.left_s)):
                return [[(run, kind) for kind in _kinds(replace(run, clock=clock))] for run in runs]
        except OutOfTime:
            self.say("no time to race integers")
            return []

    def _rounded(self, run: Run, kind: str) -> list[Candidate]:
        """Return the original in integers; nothing, and why, where that fails or its answers are lost."""
        blank = Candidate(f"{runtime_of(run.base)}, {_KINDS[kind]}", Plan())
        graph = isinstance(self.task.model, GraphModel)
        found = attempt(run, blank, (rounded_graph(run, kind) if graph else in_integers(run, run.base, kind)))
        if found.quality is None or found.artefact is None:
            self.say(f"{found.name}: not raced ({found.reason})")
            return []
        if safety(run, found) < _RUINED:
            drop, metric = run.drop(found), self.task.metric.name
            self.say(f"{found.name}: not raced ({metric} is {drop:.4f} worse, {run.margin:.4f} is allowed)")
            return []
        return [found]

    def glanced(self, files: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Return `files` as the quickest measurement shows them, and learn what that takes."""
        begun_s = self.clock.elapsed_s
        found, pace = self.timed(files, PACES[-1]), PACES[-1]
        took_s = self.clock.elapsed_s - begun_s
        free_s = Ending().measuring_s(pace, len(files) - 1)
        self.costs = Ending(launch_s=max(0.0, took_s - free_s) / (pace.glances * len(files)))
        return found

    def pace(self, files: int) -> Pace:
        """Return the most careful pace at which so many files are measured in the time left."""
        left_s = self.clock.remaining_s
        paces = (pace for pace in PACES if _SLACK * self.costs.measuring_s(pace, files - 1) <= left_s)
        return next(paces, PACES[-1])

    def timed(self, files: Sequence[Candidate], pace: Pace) -> tuple[Candidate, ...]:
        """Return those of `files` that ran, with their speed against the first; none where the time was short."""
        if self.clock.remaining_s <= 0:
            return ()
        try:
            with watched(max(0.0, self.clock.remaining_s)):
                results = self._measured([file.artefact for file in files if file.artefact is not None], pace)
        except (MeasurementError, OutOfTime) as error:
            self.say(f"no measurement of {len(files)} files ({_first_line(error)})")
            return ()
        able = [(f, r) for f, r in zip(files[1:], results, strict=True) if isinstance(r, Comparison)]
        if not able:
            return ()
        return _with_itself(files[0], able[0][1]), *(replace(file, speed=result) for file, result in able)

    def _measured(self, files: Sequence[Artefact], pace: Pace) -> tuple[Comparison | MeasurementError, ...]:
        request = self.request
        return measure_all(
            files[0],
            files[1:],
            self.task.inputs,
            threads=request.threads,
            seconds=pace.glance_s,
            batch=request.call_size,
            launches=pace.glances,
        )


def _share_s(clock: Clock) -> float:
    """Return the seconds that a race may take."""
    return MOST_S if clock.budget_s is None else min(SHARE * clock.budget_s, max(0.0, clock.left_s))


def _with_itself(file: Candidate, other: Comparison) -> Candidate:
    """Return the file that others were compared with as it ran then."""
    same = replace(
        other, ratio=1.0, low=1.0, high=1.0, candidate=other.base, verdict=Verdict.NO_DIFFERENCE_SHOWN
    )
    return replace(file, speed=same)


def _kinds(run: Run) -> tuple[str, ...]:
    """Return the kinds of integers to try, most promising first."""
    return graph_kinds(run) if isinstance(run.task.model, GraphModel) else schemes_for(run)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
