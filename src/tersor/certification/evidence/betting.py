"""A betting e-process for bounded scores: valid at every sample, so that one may look and stop at any time."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from tersor._check import positive
from tersor.certification.evidence.outcomes import Evidence, Outcomes, Pairs, count_evidence
from tersor.errors import DataError


@dataclass(frozen=True, slots=True)
class Betting:
    r"""Wealth of a gambler who bets against "the drop is at least the margin".

    $$W_t = \prod_{i \le t} (1 + \lambda_i(\delta - D_i)), \qquad
      \lambda_i = \frac{\delta - \hat\mu_{i-1}}{\hat\sigma_{i-1}^2 + (\delta - \hat\mu_{i-1})^2}$$

    clipped to $[0, \tfrac12/(1 - \delta)]$, where drops and margin are divided by the span of the scores, and mean
    and variance are those of the samples before i, started with `prior_samples` samples of variance
    `prior_variance`. If the drop is at least $\delta$, then W is a supermartingale, so that by Ville's
    inequality $\sup_t W_t \ge 1/\alpha$ has probability at most $\alpha$; $p = 1/\max_t W_t$.

    Attributes:
        prior_samples: weight of the starting guess, in samples.
        prior_variance: guessed variance of a drop, in units of the squared span.
        seed: seed of the order in which `__call__` walks the samples. The order must not depend on the scores.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> base = rng.random(2000)
        >>> Betting()(Pairs(base, np.clip(base + rng.normal(0, 0.02, 2000), 0, 1)), margin=0.01).p < 0.001
        True

    Source:
        Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, Journal of the Royal
        Statistical Society B 86 (2024), section 4 (the aGRAPA bets are in appendix B.3).
    """

    prior_samples: int = 50
    prior_variance: float = 0.06
    seed: int = 0

    name: ClassVar[str] = "betting"
    version: ClassVar[str] = "1"
    kind: ClassVar[str] = "anytime"

    def log_wealth(
        self,
        drops: Float[np.ndarray, " samples"],
        margin: float,
        *,
        span: float = 1.0,
        against_more: bool = True,
    ) -> Float[np.ndarray, " samples"]:
        """Return the logarithm of the wealth after each sample, in the given order.

        Args:
            drops: base score minus candidate score of each sample, in [-span, span].
            margin: the drop that is refused, in [0, span).
            span: highest possible score minus lowest.
            against_more: bet against "the drop is at least `margin`"; False is the mirror, against "at most".

        Raises:
            ArgumentError: if the span is not positive.
            DataError: if the margin or a drop is outside what the span allows.
        """
        positive("span", span)
        scaled, target = np.asarray(drops, dtype=np.float64) / span, margin / span
        if not 0 <= target < 1 or np.any(~(np.abs(scaled) <= 1 + 1e-12)):
            raise DataError(
                f"Drops must lie in [{-span:g}, {span:g}] and the margin in [0, {span:g}), got {margin!r}."
            )
        gains = target - scaled if against_more else scaled - target
        before = np.arange(len(gains)) + self.prior_samples
        sums = np.cumsum(scaled) - scaled
        squares = np.cumsum(scaled**2) - scaled**2 + self.prior_samples * self.prior_variance
        mean = sums / before
        variance = np.maximum(squares / before - mean**2, 1e-4)
        edge = target - mean if against_more else mean - target
        worst = 1 - target if against_more else 1 + target
        bets = np.clip(edge / (variance + edge**2), 0.0, 0.5 / worst)
        return np.cumsum(np.log1p(bets * gains))

    def __call__(self, outcomes: Outcomes, margin: float) -> Evidence:
        """Return the evidence after all samples, walked in an order drawn from `seed` unless they were walked.

        Raises:
            DataError: if the outcomes are not scores of single samples, or their bounds are not finite.
        """
        if not isinstance(outcomes, Pairs) or not math.isfinite(outcomes.high - outcomes.low):
            raise DataError("Betting needs one score per sample with finite bounds. Use 'bca' otherwise.")
        shuffled = np.random.default_rng(self.seed).permutation(len(outcomes))
        drops = outcomes.drops if outcomes.walked else outcomes.drops[shuffled]
        wealth = self.log_wealth(drops, margin, span=outcomes.high - outcomes.low)
        return count_evidence(outcomes, math.exp(-max(float(wealth.max()), 0.0)))


class Race(Enum):
    """Where a sequential comparison stands; the value is what it means."""

    HOLDS = "The drop is below the margin; no more samples are needed."
    FUTILE = "The drop is above the margin; more samples will not help."
    OPEN = "Undecided; go on if there are more samples."


def race(
    drops: Float[np.ndarray, " samples"],
    margin: float,
    *,
    alpha: float,
    futility: float = 0.1,
    span: float = 1.0,
) -> tuple[Race, int]:
    """Return how a comparison stands, and after how many samples that was decided.

    It may be asked after every batch with all samples seen so far: the answer never changes once it is given.

    Args:
        drops: base score minus candidate score, in the order of evaluation.
        margin: the drop that is refused.
        alpha: probability of calling a candidate fit that is not.
        futility: probability of calling a candidate unfit that is fit.
        span: highest possible score minus lowest.

    Example:
        >>> race(np.zeros(3000), 0.01, alpha=0.05)
        (<Race.HOLDS: 'The drop is below the margin; no more samples are needed.'>, 630)
        >>> race(np.full(3000, 0.5), 0.01, alpha=0.05)[0].name
        'FUTILE'
    """
    betting = Betting()
    up = betting.log_wealth(drops, margin, span=span) >= math.log(1 / alpha)
    down = betting.log_wealth(drops, margin, span=span, against_more=False) >= math.log(1 / futility)
    first_up, first_down = (int(hit.argmax()) if hit.any() else len(drops) for hit in (up, down))
    if first_up == first_down:
        return Race.OPEN, len(drops)
    return (Race.HOLDS, first_up + 1) if first_up < first_down else (Race.FUTILE, first_down + 1)
