"""The bias-corrected and accelerated bootstrap, for metrics that do not decompose over samples. Asymptotic."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import ndtr, ndtri

from tersor.certification.evidence.outcomes import Evidence, Outcomes, Pairs, Resampled, Statistic
from tersor.errors import DataError

#: Groups of the jackknife; more change the acceleration little and cost an evaluation each.
_GROUPS = 200


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
    rng = np.random.default_rng(seed)
    replicates = np.array([drop(rng.integers(0, n, n)) for _ in range(draws)])
    groups = np.array_split(rng.permutation(n), min(n, _GROUPS))
    everyone = np.arange(n)
    jackknife = np.array([drop(np.delete(everyone, group)) for group in groups]) if n > 1 else np.zeros(1)
    broken = int((~np.isfinite(np.append(replicates, jackknife))).sum())
    if broken:
        raise DataError(
            f"The metric is not a number on {broken} of {len(replicates) + len(jackknife)} redrawn sets of samples. "
            "Define it where a class is absent, or bring more samples."
        )
    return Resampled(float(drop(everyone)), replicates, jackknife, n)


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
            drawn = resample(
                lambda index: float(drops[index].mean()), len(drops), draws=self.draws, seed=self.seed
            )
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
