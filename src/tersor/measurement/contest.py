"""Files run in turns against one base: launches, rounds, blocks, and what is made of them.

A launch is a set of fresh processes, one a file. In a round each file has one block next to a block of the
base: x base y, and y base x in the round after (ABBA for each); the next launch starts, and opens its files, the
other way round. So neither a drift of the machine nor a place in the order favours anybody.
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
WARMUP_S = 0.1
#: Where memory happens to lie changes the speed of a process by about half a per cent for as long as it lives, so
#: one launch is one observation; six are the fewest with a 95 per cent interval.
LAUNCHES = 6
#: Where all of those but one lie on the same side of 1, there are more, up to so many; see `interval_of`.
MOST_LAUNCHES = 10
#: Even, so that each file goes first equally often.
MIN_PAIRS = 4
#: Where the system spoils pairs, a launch that is late makes up for them, in at most this many times the fewest rounds.
PATIENCE = 3
#: Levels of the quantiles that are kept of all calls: the middles of 64 equal shares.
_LEVELS = (np.arange(64) + 0.5) / 64
#: A launch ends when the interval of its own median is this narrow, relative to the median.
NARROW = 0.02
#: A file whose whole interval lies below this is slower, whatever further launches say, and gets none.
HOPELESS = 0.9


@dataclass(frozen=True, slots=True)
class Setting:
    """A file and the threads it runs on."""

    artefact: Artefact
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Pair:
    """A block of the base and a block of the candidate, one right after the other.

    Attributes:
        base: block of the base.
        candidate: block of the candidate.
        serial: whether both run on one thread, so that processor time is what they would take if left alone.
    """

    base: Block
    candidate: Block
    serial: bool = False

    @property
    def ratio(self) -> float:
        """Base time over candidate time: processor time where the system took the processor of one thread away."""
        if self.serial and self.switches:
            return median(self.base.busy_s) / median(self.candidate.busy_s)
        return median(self.base.times_s) / median(self.candidate.times_s)

    @property
    def switches(self) -> int:
        """Times the system took the processor away."""
        return self.base.switches + self.candidate.switches


@dataclass(slots=True)
class Track:
    """One file on its way through a contest."""

    setting: Setting
    launches: list[list[Pair]] = field(default_factory=list)
    runner: Runner | None = None
    load_s: float = 0.0
    peak_bytes: int = 0
    failure: MeasurementError | None = None

    def wants_more(self, least: int, *, late: bool) -> bool:
        """Whether this launch needs another pair; when it is late, only for want of `least` that count."""
        if self.failure is not None:
            return False
        ratios = [pair.ratio for pair in counting(self.launches[-1])]
        return len(ratios) < least or (not late and median_interval(ratios).relative_width > NARROW)


def contest(
    base: Setting,
    others: Sequence[Setting],
    arrays: Sequence[np.ndarray],
    *,
    batch: int,
    seconds: float,
    launches: int = LAUNCHES,
) -> tuple[Comparison | MeasurementError, ...]:
    """Time every file of `others` against `base`, for at most about `seconds` each.

    Args:
        base: the file to compare with.
        others: the files to compare.
        arrays: the inputs, one array a tensor.
        batch: samples in them.
        seconds: time cap for each file, seconds, without opening it; it gives way to the pairs that an interval needs.
        launches: fresh processes for each file.

    Returns:
        For each of `others` its Comparison, or the error with which its process ended.

    Raises:
        MeasurementError: if the base cannot be run.
    """
    reference, tracks = Track(base), [Track(setting) for setting in others]
    least = max(MIN_PAIRS, -(-6 // launches))
    for number in range(launches):
        _launch(reference, tracks, arrays, (seconds / launches, least), flip=number % 2 == 1)
    for number in range(LAUNCHES, MOST_LAUNCHES if launches == LAUNCHES else 0):
        close = [track for track in tracks if track.failure is None and _one_against(track.launches, number)]
        _launch(reference, close, arrays, (seconds / launches, least), flip=number % 2 == 1)
    return tuple(_conclude(reference, track, batch) for track in tracks)


def solo(setting: Setting, arrays: Sequence[np.ndarray], *, batch: int, seconds: float) -> Measurement:
    """Time one file alone for `seconds`, in blocks; those without a context switch count.

    Raises:
        MeasurementError: if the file cannot be run.
    """
    track = Track(setting)
    with ExitStack() as processes:
        _open((track,), arrays, processes)
        _insist(track)
        end = time.monotonic() + seconds
        blocks: list[Block] = []
        while not blocks or time.monotonic() < end:
            block = _block(track)
            if block is None:
                break
            blocks.append(block)
        _record(track)
    _insist(track)
    clean = [block for block in blocks if not block.switches]
    return summarize(track, clean if 2 * len(clean) >= len(blocks) else blocks, batch)


def interval_of(launches: Sequence[Sequence[Pair]]) -> Interval:
    """Return the median speed-up with its interval.

    Each launch gives one observation, the median of its pairs. Fewer than six launches have no interval of their
    own; then the pairs are the observations, and how much processes of one file differ stays unknown.

    Six to nine launches: the smallest and the largest observation. Ten: the second smallest and the second largest.
    Looking after six, and going on to ten where a single launch stands against the others, keeps the confidence: the
    interval misses the median only if all of the first six launches lie on one side of it (2/64), or if nine of ten
    do and the tenth is among the first six (12/1024); together 4.3 per cent.
    """
    ratios = [[pair.ratio for pair in counting(pairs)] for pairs in launches]
    if len(ratios) < LAUNCHES:
        return median_interval([ratio for launch in ratios for ratio in launch])
    medians = [median(launch) for launch in ratios]
    if len(medians) < MOST_LAUNCHES:
        return Interval(median(medians), min(medians), max(medians))
    return median_interval(medians)


def _one_against(launches: Sequence[Sequence[Pair]], count: int) -> bool:
    """Whether there are `count` launches, and all but one lie on the same side of 1."""
    medians = [median(pair.ratio for pair in counting(pairs)) for pairs in launches if pairs]
    return len(medians) == count and 1 in (sum(m < 1 for m in medians), sum(m > 1 for m in medians))


def counting(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """Return the pairs without a context switch, or all of them where these are fewer than half.

    The choice looks at both blocks of a pair alike, so it favours neither file.
    """
    clean = [pair for pair in pairs if not pair.switches]
    return clean if 2 * len(clean) >= len(pairs) else pairs


def _launch(
    base: Track, tracks: list[Track], arrays: Sequence[np.ndarray], effort: tuple[float, int], *, flip: bool
) -> None:
    """Run rounds in fresh processes until the time is up or every interval is narrow.

    Args:
        base: the file to compare with.
        tracks: the others.
        arrays: the inputs.
        effort: time for each file, seconds, and the fewest rounds.
        flip: open the files, and begin, in reverse order.
    """
    seconds, least = effort
    running = [
        track for track in tracks if track.failure is None and interval_of(track.launches).high >= HOPELESS
    ]
    if not running:
        return
    with ExitStack() as processes:
        _open((*reversed(running), base) if flip else (base, *running), arrays, processes)
        _insist(base)
        end = time.monotonic() + seconds * len(running)
        for turn in count():
            late = turn >= least and time.monotonic() > end
            active = [track for track in running if track.wants_more(least, late=late)]
            if not active or (late and turn >= PATIENCE * least):
                break
            for position in range(0, len(active), 2):
                _turn(base, active[position : position + 2], flip=flip ^ (turn % 2 == 1))
        for track in (base, *running):
            _record(track)


def _open(everyone: Sequence[Track], arrays: Sequence[np.ndarray], processes: ExitStack) -> None:
    """Start a process for each file, then open and warm up one after the other.

    Files with equal threads share their processors.
    """
    cpus = {threads: quiet_cpus(threads) for threads in {track.setting.threads for track in everyone}}
    for track in everyone:
        setting, bound = track.setting, cpus[track.setting.threads]
        runner = Runner(setting.artefact, arrays, threads=setting.threads, cpus=bound, wait=False)
        track.runner = processes.enter_context(runner)
        track.launches.append([])
    for track in everyone:
        assert track.runner is not None, "started above"
        try:
            track.runner.open()
            track.runner.block(WARMUP_S)
        except MeasurementError as error:
            track.failure = error


def _turn(base: Track, tracks: list[Track], *, flip: bool) -> None:
    """Run a block of each of at most two files, with one of the base between them or beside the only one."""
    order = [tracks[0], base, *tracks[1:]]
    blocks = {id(track): _block(track) for track in (reversed(order) if flip else order)}
    _insist(base)
    for track in tracks:
        mine, reference = blocks[id(track)], blocks[id(base)]
        if mine is not None and reference is not None:
            serial = base.setting.threads == track.setting.threads == 1
            track.launches[-1].append(Pair(reference, mine, serial))


def _insist(track: Track) -> None:
    """Raise the error with which the process of a file ended, if it did."""
    if track.failure is not None:
        raise track.failure


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
    interval = interval_of(track.launches)
    everything = [pair for pairs in track.launches for pair in pairs]
    kept = [pair for pairs in track.launches for pair in counting(pairs)]
    return Comparison(
        ratio=interval.median,
        low=interval.low,
        high=interval.high,
        blocks=len(kept),
        dropped=len(everything) - len(kept),
        launches=len(track.launches),
        base=summarize(base, [pair.base for pair in kept], batch),
        candidate=summarize(track, [pair.candidate for pair in kept], batch),
        verdict=verdict_of(interval.low, interval.high),
        contention=sum(pair.switches > 0 for pair in everything) / len(everything),
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
        energy_j=_energy_of(blocks),
        quantiles_s=tuple(float(f"{value:.4g}") for value in np.quantile(times, _LEVELS)),
    )


def _energy_of(blocks: Sequence[Block]) -> float | None:
    """Return the median energy of a call over blocks, joules."""
    known = [block.energy_j / len(block.times_s) for block in blocks if block.energy_j is not None]
    return median(known) if known else None
