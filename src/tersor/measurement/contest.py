"""Files run in turns against one base: launches, rounds, blocks, and what is made of them.

A launch is a set of fresh processes, one a file. In a round each file has one block next to a block of the
base: x base y, and y base x in the round after (ABBA for each), so that a drift of the machine favours nobody.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from math import inf
from statistics import median

import numpy as np

from tersor.errors import MeasurementError
from tersor.exporting.artefact import Artefact
from tersor.measurement.affinity import quiet_cpus
from tersor.measurement.median import Interval, median_interval
from tersor.measurement.result import Comparison, Measurement, verdict_of
from tersor.measurement.runner import Block, Runner

BLOCK_S = 0.05
WARMUP_S = 0.3
#: Fresh processes per comparison: where memory happens to lie changes the speed of a process by a per cent or so.
LAUNCHES = 4
#: The fewest pairs with a 95 per cent interval are six; ten give it some room.
MIN_PAIRS = 10
#: An interval this narrow, relative to the ratio, ends the measurement.
NARROW = 0.02


@dataclass(frozen=True, slots=True)
class Setting:
    """A file and the threads it runs on."""

    artefact: Artefact
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Pair:
    """A block of the base and a block of the candidate, one right after the other."""

    base: Block
    candidate: Block

    @property
    def ratio(self) -> float:
        """Base time over candidate time."""
        return median(self.base.times_s) / median(self.candidate.times_s)

    @property
    def switches(self) -> int:
        """Times the system took the processor away."""
        return self.base.switches + self.candidate.switches


@dataclass(slots=True)
class Track:
    """One file on its way through a contest."""

    setting: Setting
    pairs: list[Pair] = field(default_factory=list)
    runner: Runner | None = None
    load_s: float = 0.0
    peak_bytes: int = 0
    failure: MeasurementError | None = None

    @property
    def open_ended(self) -> bool:
        """Whether more pairs would tell more."""
        if self.failure is not None:
            return False
        return len(self.pairs) < MIN_PAIRS or interval_of(self.pairs).relative_width > NARROW


def contest(
    base: Setting, others: Sequence[Setting], arrays: Sequence[np.ndarray], *, batch: int, seconds: float
) -> tuple[Comparison | MeasurementError, ...]:
    """Time every file of `others` against `base`, for at most about `seconds` each.

    Args:
        base: the file to compare with.
        others: the files to compare.
        arrays: the inputs, one array a tensor.
        batch: samples in them.
        seconds: time cap for each file, seconds; it gives way to the pairs that an interval needs.

    Returns:
        For each of `others` its Comparison, or the error with which its process ended.

    Raises:
        MeasurementError: if the base cannot be run.
    """
    reference, tracks = Track(base), [Track(setting) for setting in others]
    for _ in range(LAUNCHES):
        active = [track for track in tracks if track.open_ended]
        if not active:
            break
        _launch(reference, active, arrays, seconds * len(active) / LAUNCHES)
    return tuple(_conclude(reference, track, batch) for track in tracks)


def solo(setting: Setting, arrays: Sequence[np.ndarray], *, batch: int, seconds: float) -> Measurement:
    """Time one file alone for `seconds`, in blocks; those without a context switch count.

    Raises:
        MeasurementError: if the file cannot be run.
    """
    track = Track(setting)
    with ExitStack() as processes:
        _open(track, [], arrays, processes)
        end = time.monotonic() + seconds
        blocks: list[Block] = []
        while not blocks or time.monotonic() < end:
            block = _block(track)
            if block is None:
                break
            blocks.append(block)
        _record(track)
    if track.failure is not None:
        raise track.failure
    clean = [block for block in blocks if not block.switches]
    return summarize(track, clean if 2 * len(clean) >= len(blocks) else blocks, batch)


def interval_of(pairs: Sequence[Pair]) -> Interval:
    """Return the median speed-up of the pairs that count, with its interval."""
    return median_interval([pair.ratio for pair in counting(pairs)])


def counting(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs without a context switch; where these are fewer than half, the half with the fewest.

    The choice looks at both blocks of a pair alike, so it favours neither file.
    """
    clean = [pair for pair in pairs if not pair.switches]
    half = (len(pairs) + 1) // 2
    return clean if len(clean) >= half else sorted(pairs, key=lambda pair: pair.switches)[:half]


def _launch(base: Track, tracks: list[Track], arrays: Sequence[np.ndarray], seconds: float) -> None:
    """Run rounds in fresh processes until the time is up or every interval is narrow."""
    with ExitStack() as processes:
        _open(base, tracks, arrays, processes)
        end = time.monotonic() + seconds
        for turn in count():
            active = [track for track in tracks if track.open_ended]
            if not active or (turn >= -(-MIN_PAIRS // LAUNCHES) and time.monotonic() > end):
                break
            for position in range(0, len(active), 2):
                _turn(base, active[position : position + 2], flip=turn % 2 == 1)
        for track in (base, *tracks):
            _record(track)


def _open(base: Track, tracks: list[Track], arrays: Sequence[np.ndarray], processes: ExitStack) -> None:
    """Start a process for each file and warm it up; files with equal threads share their processors."""
    everyone = (base, *tracks)
    cpus = {threads: quiet_cpus(threads) for threads in {track.setting.threads for track in everyone}}
    for track in everyone:
        setting = track.setting
        try:
            runner = Runner(setting.artefact, arrays, threads=setting.threads, cpus=cpus[setting.threads])
            track.runner = processes.enter_context(runner)
            track.runner.block(WARMUP_S)
        except MeasurementError as error:
            track.failure = error
    if base.failure is not None:
        raise base.failure


def _turn(base: Track, tracks: list[Track], *, flip: bool) -> None:
    """Run a block of each of at most two files, with one of the base between them or beside the only one."""
    order = [tracks[0], base, *tracks[1:]]
    blocks = {id(track): _block(track) for track in (reversed(order) if flip else order)}
    if base.failure is not None:
        raise base.failure
    for track in tracks:
        mine, reference = blocks[id(track)], blocks[id(base)]
        if mine is not None and reference is not None:
            track.pairs.append(Pair(reference, mine))


def _block(track: Track) -> Block | None:
    assert track.runner is not None, "a file without a process takes no turn"
    try:
        return track.runner.block(BLOCK_S)
    except MeasurementError as error:
        track.failure = error
        return None


def _record(track: Track) -> None:
    """Keep what the process knows before it ends: the fastest load and the highest peak of the launches."""
    if track.runner is None or track.failure is not None:
        return
    track.load_s = min(track.load_s or inf, track.runner.load_s)
    track.peak_bytes = max(track.peak_bytes, track.runner.peak_bytes())


def _conclude(base: Track, track: Track, batch: int) -> Comparison | MeasurementError:
    if track.failure is not None:
        return track.failure
    kept, interval = counting(track.pairs), interval_of(track.pairs)
    return Comparison(
        ratio=interval.median,
        low=interval.low,
        high=interval.high,
        blocks=len(kept),
        dropped=len(track.pairs) - len(kept),
        base=summarize(base, [pair.base for pair in kept], batch),
        candidate=summarize(track, [pair.candidate for pair in kept], batch),
        verdict=verdict_of(interval.low, interval.high),
        contention=sum(pair.switches > 0 for pair in track.pairs) / len(track.pairs),
    )


def summarize(track: Track, blocks: Sequence[Block], batch: int) -> Measurement:
    """Return the Measurement of the calls in `blocks`."""
    times = np.concatenate([block.times_s for block in blocks])
    median_s, p90_s, p99_s = (float(value) for value in np.percentile(times, (50, 90, 99)))
    artefact = track.setting.artefact
    return Measurement(
        median_s=median_s,
        p90_s=p90_s,
        p99_s=p99_s,
        throughput_per_s=float(batch * len(times) / times.sum()),
        peak_bytes=track.peak_bytes,
        load_s=track.load_s,
        size_bytes=artefact.size_bytes,
        threads=track.setting.threads,
        batch=batch,
        runtime=artefact.runtime,
        calls=len(times),
    )
