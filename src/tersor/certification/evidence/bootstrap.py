"""The bias-corrected and accelerated bootstrap, for metrics that do not decompose over samples. Asymptotic."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from tersor.certification.evidence.outcomes import Evidence, Outcomes, Pairs, Resampled, Statistic
from tersor.errors import DataError
from tersor.loading.recount import Recount

#: Groups of the jackknife; more change the acceleration little and cost an evaluation each.
_GROUPS = 200


#: Counts held at a time while drawing: some megabytes, which stay in the cache.
_HELD = 2**19


def resample(drop: Statistic, n: int, *, draws: int = 10_000, seed: int = 0) -> Resampled:
    """Return `drop` on all samples, on `draws` bootstrap draws, and without each of at most 200 groups of samples.

    Args:
        drop: the drop in the metric when only the samples with the given indices count (repeated ones repeatedly).
        n: number of samples.
        draws: bootstrap draws.
        seed: seed of the draws and of the groups.

    Raises:
        DataError: if the metric is not finite on a draw.

    Example:
        >>> x = np.linspace(-1, 1, 50)
        >>> resample(lambda index: float(x[index].mean()), 50, draws=10).replicates.shape
        (10,)
    """
    everyone = np.arange(n)
    drops = lambda counts: np.array([drop(np.repeat(everyone, row.astype(np.int64))) for row in counts])
    return resample_counts(drops, n, draws=draws, seed=seed)


def resample_counts(drops: Recount, n: int, *, draws: int = 10_000, seed: int = 0) -> Resampled:
    """Do as `resample` with the drops on many draws at once, told from how often each sample is in a draw.

    Args:
        drops: drops in the metric, shape (draws,), from counts of the samples, shape (draws, samples).
        n: see `resample`.
        draws: see `resample`.
        seed: see `resample`.

    Raises:
        DataError: if the metric is not finite on a draw.

    Example:
        >>> x = np.linspace(-1, 1, 50)
        >>> resample_counts(lambda counts: counts @ x / counts.sum(1), 50, draws=10).replicates.shape
        (10,)
    """
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(draws))
    replicates = _at_once(drops, drawn, n)
    groups = np.array_split(rng.permutation(n), min(n, _GROUPS))
    without = (np.bincount(np.delete(np.arange(n), group), minlength=n) for group in groups)
    jackknife = _at_once(drops, without, n) if n > 1 else np.zeros(1)
    broken = int((~np.isfinite(np.append(replicates, jackknife))).sum())
    if broken:
        raise DataError(
            f"The metric is not a number on {broken} of {len(replicates) + len(jackknife)} redrawn sets of samples. "
            "Define it where a class is absent, or bring more samples."
        )
    return Resampled(float(drops(np.ones((1, n)))[0]), replicates, jackknife, n)


def _at_once(drops: Recount, counts: Iterator[np.ndarray], n: int) -> np.ndarray:
    """Return the drops on all draws, of which so many are held at a time as fit."""
    held = max(1, _HELD // n)
    return np.concatenate([drops(np.array(some, np.float64)) for some in _batched(counts, held)])


def _batched(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while some := list(islice(items, size)):
        yield some


@dataclass(frozen=True, slots=True)
class BCa:
    r"""One-sided test that inverts the upper BCa limit of the drop.

    With G the bootstrap distribution, $z_0 = \Phi^{-1}(G(\hat\theta))$, a the acceleration from the jackknife and
    $w = \Phi^{-1}(G(\delta))$:

    $$p = \Phi\Bigl(z_0 - \frac{w - z_0}{1 + a(w - z_0)}\Bigr)$$

    never below 1/(draws + 1). The level holds in the limit of many samples only.

    Attributes:
        draws: bootstrap draws for outcomes that are not resampled yet.
        seed: seed of these draws.

    Example:
        >>> drops = np.random.default_rng(0).normal(0.0, 0.1, 400)
        >>> BCa()(resample(lambda index: float(drops[index].mean()), 400, draws=2000), margin=0.02).p < 0.01
        True

    Source:
        Efron, Better bootstrap confidence intervals, Journal of the American Statistical Association 82 (1987),
        sections 3 and 6; Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 14.3.
    """

    draws: int = 10_000
    seed: int = 0

    name: ClassVar[str] = "bca"
    version: ClassVar[str] = "1"
    kind: ClassVar[str] = "asymptotic"

    def __call__(self, outcomes: Outcomes, margin: float) -> Evidence:
        """Return the asymptotic p-value."""
        if isinstance(outcomes, Pairs):
            drops = outcomes.drops
            means = lambda counts: counts @ drops / len(drops)
            drawn = resample_counts(means, len(drops), draws=self.draws, seed=self.seed)
        else:
            drawn = outcomes
        return Evidence(_p(drawn, margin), drawn.estimate, drawn.samples)


def _p(drawn: Resampled, margin: float) -> float:
    draws = len(drawn.replicates)
    smallest = 1 / (draws + 1)
    if np.ptp(drawn.replicates) == 0:
        return smallest if drawn.estimate < margin else 1.0
    centered = drawn.jackknife.mean() - drawn.jackknife
    cubes = float((centered**2).sum()) ** 1.5
    acceleration = float((centered**3).sum()) / (6 * cubes) if cubes > 0 else 0.0
    bias = float(ndtri(_share_below(drawn.replicates, drawn.estimate)))
    distance = float(ndtri(_share_below(drawn.replicates, margin))) - bias
    bend = 1 + acceleration * distance
    if bend <= 0:
        return 1.0
    return min(max(float(ndtr(bias - distance / bend)), smallest), 1.0) if math.isfinite(bend) else 1.0


def _share_below(replicates: np.ndarray, value: float) -> float:
    """Return the fraction below `value`, ties counted half, kept away from 0 and 1 by half a draw."""
    below = float((replicates < value).sum()) + 0.5 * float((replicates == value).sum())
    return float(np.clip(below, 0.5, len(replicates) - 0.5)) / len(replicates)
