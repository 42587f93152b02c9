"""The start of a search: the original as a file, its quality, and the free baseline that candidates have to beat."""

from pathlib import Path

from tersor.errors import TersorError
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import RUNTIMES, export, with_options
from tersor.loading.build import Built
from tersor.loading.task import Task
from tersor.measurement.measure import measure_all
from tersor.measurement.result import Comparison, Verdict
from tersor.planning.plan import Plan
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.events import Event
from tersor.search.request import Request
from tersor.search.run import Baseline, Run, counted, with_file

#: Seconds that each free baseline is measured for.
_GLANCE_S = 1.5
#: Fresh processes of each baseline.
_GLANCES = 3
#: Compiling takes longer than most searches of a small model; `tersor bench` races it.
_NOT_RACED = ("torch-compile",)


def start(built: Built, request: Request, clock: Clock, folder: Path) -> Run:
    """Export and evaluate the original, race its free baselines, and fix the limit.

    Raises:
        ExportError: if the original cannot be exported for the target.
        ArgumentError: if the limit would accept any model.
    """
    for line in built.notes.words():
        request.listen(Event("data", line))
    task = built.task
    blank = Candidate(name="original", plan=Plan(), model=task.model, why="what everything is compared with")
    base = counted(blank, task.model, task.inputs)
    base = with_file(base, task, folder, target=request.target, threads=request.threads)
    assert base.quality is not None
    assert base.artefact is not None
    value, up = base.quality.value, task.metric.higher_is_better
    floor = request.drop.floor(value, up)
    request.listen(Event("baseline", request.drop.words(task.metric.name, value, up)))
    baselines = _race(task, base.artefact, request, folder)
    rival = _fastest(base.artefact, baselines)
    return Run(task, request, clock, folder, base, rival, baselines, request.drop.margin(value), floor)


def _race(task: Task, base: Artefact, request: Request, folder: Path) -> tuple[Baseline, ...]:
    """Measure the original in every runtime at hand, and without graph optimization, against `base`."""
    entries = [
        Baseline(f"{base.runtime}, no graph optimization", with_options(base, graph_optimization="disable"))
    ]
    for name in RUNTIMES:
        if name == base.runtime or name in _NOT_RACED or RUNTIMES[name].missing():
            continue
        try:
            entries.append(Baseline(name, export(task.model, task.inputs, folder / f"original.{name}", name)))
        except TersorError as error:
            request.listen(Event("baseline", f"{name}: {error}"))
    results = measure_all(
        base,
        [entry.artefact for entry in entries],
        task.inputs,
        threads=request.threads,
        seconds=_GLANCE_S,
        batch=request.call_size,
        launches=_GLANCES,
    )
    raced = [_with_result(entry, result) for entry, result in zip(entries, results, strict=True)]
    for entry in raced:
        words = entry.reason if entry.speed is None else f"{entry.speed.ratio:.2f}x"
        request.listen(Event("baseline", f"{entry.name}: {words} of {base.runtime}"))
    return (Baseline(f"{base.runtime} (base)", base), *raced)


def _with_result(entry: Baseline, result: object) -> Baseline:
    if isinstance(result, Comparison):
        return Baseline(entry.name, entry.artefact, result)
    return Baseline(entry.name, entry.artefact, reason=str(result))


def _fastest(base: Artefact, baselines: tuple[Baseline, ...]) -> Artefact:
    """Return the fastest baseline: the base itself unless another is measured faster."""
    faster = [b for b in baselines if b.speed is not None and b.speed.verdict is Verdict.FASTER]
    return max(faster, key=lambda b: b.speed.ratio if b.speed else 0.0).artefact if faster else base
