"""The exact level and power of the exact test, by enumeration."""

from functools import lru_cache

import numpy as np

from tersor.certification.evidence.region import Region
from tersor.certification.evidence.score import largest_b


@lru_cache(maxsize=64)
def rejection_region(n: int, margin: float, alpha: float) -> Region:
    """Return the counts (b, c) of n samples for which the exact test certifies at level `alpha`.

    Example:
        >>> region = rejection_region(500, 0.02, 0.05)
        >>> int(region.limits[30])  # of 30 discordant samples at most so many may be lost
        15
    """
    low, high = -40.0, 8.0
    while high - low > 1e-7:
        middle = (low + high) / 2
        size = Region(largest_b(n, margin, middle)).largest_probability(margin, expected=alpha)
        low, high = (middle, high) if size <= alpha else (low, middle)
    return Region(largest_b(n, margin, low))


def exact_power(n: int, q: float, margin: float, *, drop: float = 0.0, alpha: float = 0.05) -> float:
    """Return the probability that the exact test certifies.

    Args:
        n: samples.
        q: probability that base and candidate differ on a sample, at least |drop|.
        margin: drop that is refused.
        drop: the true drop; at or above `margin` this is the probability of a false certificate.
        alpha: level.

    Example:
        >>> round(exact_power(1000, 0.03, 0.02), 3)
        0.965
    """
    return float(rejection_region(n, margin, alpha).probability(np.array([q]), drop)[0])
