"""The free baselines: the unchanged model in every runtime, at each number of threads and optimization level."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tersor.errors import ExportError, MeasurementError, TersorError
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import RUNTIMES, export, with_options
from tersor.exporting.feed import feed
from tersor.loading.inputs import Inputs
from tersor.measurement.contest import LAUNCHES, Setting, contest
from tersor.measurement.machine import usable_cores
from tersor.measurement.result import Comparison, Verdict

if TYPE_CHECKING:
    from torch import nn

#: Runtime -> the options worth racing, by the words that name them.
_VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "onnxruntime": {
        "": {},
        "no layout optimization": {"graph_optimization": "extended"},
        "no graph optimization": {"graph_optimization": "disable"},
    }
}
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One way to run the unchanged model.

    Attributes:
        name: runtime, options and threads in words.
        artefact: the file; None if it could not be written.
        threads: threads the runtime may use.
        speed: compared with the first entry that could be written; None for that one, and where it failed.
        reason: why it could not be run; empty where it was.
    """

    name: str
    artefact: Artefact | None
    threads: int
    speed: Comparison | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Race:
    """The free baselines, in the order they were raced, and the fastest of them."""

    entries: tuple[Entry, ...]
    fastest: Entry

    def __str__(self) -> str:
        return "\n".join(
            _line(entry) + ("  <- use this" if entry is self.fastest else "") for entry in self.entries
        )


def race(
    model: "nn.Module",
    inputs: Inputs,
    folder: Path | str,
    *,
    batch: int | None = None,
    seconds: float = 1.5,
    runtimes: Sequence[str] | None = None,
    listen: Callable[[str], None] | None = None,
) -> Race:
    """Export `model` as it is to every runtime, and time every way of running it.

    Args:
        model: any module; not changed.
        inputs: a real batch.
        folder: where the files go.
        batch: samples per call; None takes `inputs` as they are.
        seconds: time cap for each entry, seconds.
        runtimes: keys of `RUNTIMES`, the first one to compare with; None takes all that are installed.
        listen: is told what happens, a line at a time.

    Returns:
        Every entry with its speed, and the fastest. An entry that fails stays, with its reason.

    Raises:
        ExportError: if no runtime takes the model.
        MeasurementError: if the first file cannot be run.
    """
    listen = listen or _ignore
    threads = sorted({1, usable_cores()})
    entries = [
        entry
        for name in (installed() if runtimes is None else runtimes)
        for entry in entrants(model, inputs, Path(folder), name, threads=threads, listen=listen)
    ]
    return run_race(entries, inputs, batch=batch, seconds=seconds, listen=listen)


def installed() -> tuple[str, ...]:
    """Return the runtimes that can be used here."""
    return tuple(name for name in RUNTIMES if not RUNTIMES[name].missing())


def _ignore(_: str) -> None:
    """Tell nobody."""


def entrants(
    model: "nn.Module",
    inputs: Inputs,
    folder: Path,
    runtime: str,
    *,
    threads: Sequence[int] = (1,),
    exported: Artefact | None = None,
    listen: Callable[[str], None] = _ignore,
) -> list[Entry]:
    """Return the ways to run `model` in a runtime, not timed yet.

    Args:
        model: any module; not changed.
        inputs: a real batch.
        folder: where the file goes.
        runtime: a key of `RUNTIMES`.
        threads: numbers of threads.
        exported: its file, if it exists already.
        listen: is told what happens.
    """
    listen(f"export to {runtime}")
    try:
        artefact = exported or export(model, inputs, folder / f"original.{runtime}", runtime)
    except TersorError as error:
        return [Entry(runtime, None, 1, reason=str(error))]
    return [
        Entry(_name(runtime, words, count), with_options(artefact, **options), count)
        for words, options in _VARIANTS.get(runtime, {"": {}}).items()
        for count in threads
    ]


def run_race(
    entries: Sequence[Entry],
    inputs: Inputs,
    *,
    batch: int | None = None,
    seconds: float = 1.5,
    launches: int = LAUNCHES,
    listen: Callable[[str], None] = _ignore,
) -> Race:
    """Time `entries` against the first of them that could be written.

    Args:
        entries: what `entrants` gave, of one runtime or of several.
        inputs: a real batch.
        batch: samples per call; None takes `inputs` as they are.
        seconds: time cap for each entry, seconds.
        launches: fresh processes for each; see `compare`.
        listen: is told what happens.

    Raises:
        ExportError: if none could be written.
        MeasurementError: if the first file cannot be run.
    """
    able = [entry for entry in entries if entry.artefact is not None]
    if not able:
        raise ExportError("No runtime takes this model. " + " ".join(entry.reason for entry in entries))
    done = {able[0].name: able[0]}
    base = able[0]
    assert base.artefact is not None
    arrays, size = feed(base.artefact, inputs, batch)
    for start in range(1, len(able), _AT_ONCE):
        group = able[start : start + _AT_ONCE]
        listen(f"time {', '.join(entry.name for entry in group)}")
        settings = [Setting(entry.artefact, entry.threads) for entry in group if entry.artefact is not None]
        first = Setting(base.artefact, base.threads)
        results = contest(first, settings, arrays, batch=size, seconds=seconds, launches=launches)
        for entry, result in zip(group, results, strict=True):
            done[entry.name] = _with_result(entry, result)
    return _ranked(tuple(done.get(entry.name, entry) for entry in entries), base.name)


def _name(runtime: str, words: str, threads: int) -> str:
    return ", ".join(filter(None, (runtime, words, f"{threads} thread{'s' if threads > 1 else ''}")))


def _with_result(entry: Entry, result: Comparison | MeasurementError) -> Entry:
    if isinstance(result, Comparison):
        return Entry(entry.name, entry.artefact, entry.threads, speed=result)
    return Entry(entry.name, entry.artefact, entry.threads, reason=str(result))


def _ranked(entries: tuple[Entry, ...], first: str) -> Race:
    """Return the race; the first entry wins unless another is measured faster."""
    faster = [entry for entry in entries if entry.speed and entry.speed.verdict is Verdict.FASTER]
    base = next(entry for entry in entries if entry.name == first)
    return Race(entries, max(faster, key=lambda entry: entry.speed.low if entry.speed else 0.0, default=base))


def _line(entry: Entry) -> str:
    if entry.reason:
        return f"{entry.name}: {entry.reason}"
    if entry.speed is None:
        return f"{entry.name}: compared with"
    speed = entry.speed
    return (
        f"{entry.name}: {speed.ratio:.2f}x ({speed.low:.2f} to {speed.high:.2f}), "
        f"{speed.candidate.median_s * 1e3:.3g} ms a call"
    )
