"""The median of repeated measurements, with an interval that assumes no distribution."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb, inf, nan

import numpy as np


@dataclass(frozen=True, slots=True)
class Interval:
    """A median with the limits between which it lies with a given confidence."""

    median: float
    low: float
    high: float

    @property
    def relative_width(self) -> float:
        """Width over median."""
        return (self.high - self.low) / self.median


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the sample median and the interval between two order statistics.

    Of n independent values each lies below the true median with probability 1/2, so
    P(x_(k) <= median <= x_(n-k+1)) >= 1 - 2 P(Binomial(n, 1/2) <= k - 1), whatever the distribution.
    k is the largest rank for which this is at least `confidence`; where no rank reaches it (fewer than six
    values at 95 per cent) the interval is (0, inf).

    Args:
        values: positive measurements.
        confidence: probability, in (0, 1).

    Example:
        >>> median_interval([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8])
        Interval(median=1.4, low=1.1, high=1.7)
        >>> median_interval([1.0, 2.0]).high
        inf

    Source:
        Conover, Practical Nonparametric Statistics, 3rd ed., 1999, section 3.2.
    """
    ordered = sorted(values)
    rank = _rank(len(ordered), confidence)
    median = float(np.median(ordered)) if ordered else nan
    if rank == 0:
        return Interval(median, 0.0, inf)
    return Interval(median, ordered[rank - 1], ordered[-rank])


@lru_cache(maxsize=4096)
def _rank(count: int, confidence: float) -> int:
    """Return the largest k with 2 P(Binomial(count, 1/2) <= k - 1) <= 1 - confidence, or 0."""
    tail, rank = 0, 0
    limit = (1.0 - confidence) / 2 * 2**count
    while rank <= count // 2:
        tail += comb(count, rank)
        if tail > limit:
            break
        rank += 1
    return rank
