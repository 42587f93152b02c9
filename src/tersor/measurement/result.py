"""The nouns of the measurement room: a Measurement of one file, a Comparison of two."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What a comparison shows; the value is what to tell the reader."""

    FASTER = "faster: the interval of the speed-up lies above 1"
    SLOWER = "slower: the interval of the speed-up lies below 1"
    NO_DIFFERENCE_SHOWN = (
        "no difference shown: the interval of the speed-up holds 1; measure longer or more quietly"
    )


@dataclass(frozen=True, slots=True)
class Measurement:
    """How one file runs on this machine.

    Attributes:
        median_s: median duration of a call, seconds.
        p90_s: duration that 90 per cent of the calls do not exceed, seconds.
        p99_s: the same for 99 per cent.
        throughput_per_s: samples per second while it runs.
        peak_bytes: peak resident memory of its process above that of an empty one.
        load_s: time to open the file and run it once, seconds.
        size_bytes: size of everything that has to be shipped.
        threads: threads the runtime may use.
        batch: samples in a call.
        runtime: name of the runtime.
        calls: number of timed calls.
        energy_j: energy of the processor packages for each call, joules, other processes included; None where
            the system does not tell (`tersor.measurement.energy.energy_missing` says why).
        length: length of the sequences in a call, where a sweep set it.
        quantiles_s: durations of a call in the middles of equal shares of all calls, from the shortest to the
            longest, which tell the whole distribution; empty where an earlier version measured.
    """

    median_s: float
    p90_s: float
    p99_s: float
    throughput_per_s: float
    peak_bytes: int
    load_s: float
    size_bytes: int
    threads: int
    batch: int
    runtime: str
    calls: int
    energy_j: float | None = None
    length: int | None = None
    quantiles_s: tuple[float, ...] = ()

    @property
    def p50_s(self) -> float:
        """The median under the name that its neighbours have."""
        return self.median_s


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much faster `candidate` is than `base`, measured in turns on this machine.

    Attributes:
        ratio: speed-up (base time / candidate time), median over launches of the median over pairs of neighbouring
            blocks; above 1 is faster.
        low: lower limit of its 95 per cent interval.
        high: upper limit.
        blocks: pairs of blocks that count.
        dropped: pairs left out because the system took the processor away during them.
        launches: fresh processes of each file.
        base: the file compared with.
        candidate: the file compared.
        verdict: what this shows.
        contention: share of all pairs during which the system took the processor away.
    """

    ratio: float
    low: float
    high: float
    blocks: int
    dropped: int
    launches: int
    base: Measurement
    candidate: Measurement
    verdict: Verdict
    contention: float


def verdict_of(low: float, high: float) -> Verdict:
    """Return what an interval of the speed-up shows.

    Example:
        >>> verdict_of(0.99, 1.2).name
        'NO_DIFFERENCE_SHOWN'
    """
    if low > 1.0:
        return Verdict.FASTER
    if high < 1.0:
        return Verdict.SLOWER
    return Verdict.NO_DIFFERENCE_SHOWN
