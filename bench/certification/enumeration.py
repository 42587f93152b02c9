"""Exact size and power by enumeration, and the time that a p-value takes."""

import time
from dataclasses import dataclass

import numpy as np

from tersor.certification.evidence.exact import exact_p
from tersor.certification.evidence.power import rejection_region
from tersor.certification.evidence.region import Region
from tersor.certification.evidence.score import largest_b

ALPHA = 0.05
NORMAL_QUANTILE = -1.6448536269514722


@dataclass(frozen=True)
class Size:
    """Largest probability of a false certificate over all disagreement rates, for the exact and Tango's test."""

    samples: int
    margin: float
    exact: float
    tango: float


@dataclass(frozen=True)
class Power:
    """Probability of a certificate for a candidate that truly drops by `drop`."""

    samples: int
    margin: float
    disagreement: float
    drop: float
    exact: float
    tango: float


def sizes() -> list[Size]:
    return [
        Size(
            n,
            margin,
            rejection_region(n, margin, ALPHA).largest_probability(margin),
            Region(largest_b(n, margin, NORMAL_QUANTILE)).largest_probability(margin),
        )
        for margin in (0.005, 0.01, 0.02)
        for n in (500, 1000, 2000, 5000, 10_000)
    ]


def powers() -> list[Power]:
    cases = [
        (n, q, drop)
        for n in (2000, 3000, 5000, 7000, 10_000)
        for q in (0.02, 0.03, 0.04, 0.06)
        for drop in (0.0, 0.003, 0.005)
    ]
    found = []
    for n, q, drop in cases:
        rate = np.array([q])
        exact = rejection_region(n, 0.01, ALPHA).probability(rate, drop)[0]
        tango = Region(largest_b(n, 0.01, NORMAL_QUANTILE)).probability(rate, drop)[0]
        found.append(Power(n, 0.01, q, drop, float(exact), float(tango)))
    return found


def seconds_of_a_p_value(samples: int = 10_000, repeats: int = 9) -> float:
    """Return the median processor time of one exact p-value."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        exact_p(230, 180, samples, 0.01)
        times.append(time.process_time() - start)
    return float(np.median(times))
