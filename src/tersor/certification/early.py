"""Early stopping: samples are evaluated only until a betting e-process has decided."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from tersor.certification.demand import Demand
from tersor.certification.evidence.betting import Race, race
from tersor.certification.evidence.outcomes import Pairs
from tersor.errors import ArgumentError, DataError


@dataclass(slots=True)
class Walk:
    """The rows of one contender, evaluated part by part as far as they are asked for; what was evaluated is kept.

    Attributes:
        parts: the rows of consecutive samples, by name of the metric.
        seen: those that were evaluated.
    """

    parts: Iterator[Mapping[str, np.ndarray]]
    seen: list[Mapping[str, np.ndarray]] = field(default_factory=list)

    def reaches(self, index: int) -> bool:
        """Evaluate up to part `index`; return whether there is such a part."""
        while len(self.seen) <= index:
            part = next(self.parts, None)
            if part is None:
                return False
            self.seen.append(part)
        return True

    def rows(self, name: str, parts: int) -> np.ndarray:
        """Return the rows of a metric in the first `parts` parts."""
        return np.concatenate([np.asarray(part[name]) for part in self.seen[:parts]])


def check_early(demands: Sequence[Demand]) -> None:
    """Raise unless a betting e-process applies to every demand.

    Raises:
        ArgumentError: if one has no bounded score for each sample, or looks at units or a subgroup.
    """
    for demand in demands:
        if not demand.bounded or demand.members is not None or demand.units is not None:
            raise ArgumentError(
                f"Early stopping needs a score with finite bounds for each sample, and {demand.metric.name} "
                f"{'is asked for a subgroup or by unit' if demand.bounded else 'has none'}. Evaluate all samples "
                "instead: `early_stop=False`."
            )


def walk(base: Walk, candidate: Walk, demands: Sequence[Demand], *, alpha: float) -> tuple[Pairs, ...]:
    """Evaluate both, part by part, until every demand holds, one is futile, or there are no more samples.

    A demand that the whole walk would show is shown at the moment the wealth of its gambler reaches 1/alpha, so
    stopping there changes no decision to certify. One is given up when the gambler who bets against "the drop is at
    most the margin" has multiplied his stake by ten; of the candidates that are at the margin or better, at most one
    in ten is lost by that.

    Args:
        base: the original.
        candidate: the finalist, over the same samples in the same order.
        demands: what must hold.
        alpha: level of the attempt.

    Returns:
        The scores that were evaluated, one entry a demand.

    Raises:
        DataError: if there is no sample, or the two were evaluated on different ones.

    Source:
        Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, Journal of the Royal
        Statistical Society B 86 (2024), section 4.
    """
    seen: tuple[Pairs, ...] = ()
    for index in count():
        more = base.reaches(index), candidate.reaches(index)
        if more == (False, False):
            break
        if False in more:
            raise DataError("Base and finalist were evaluated on different samples. Walk the same split.")
        seen = tuple(_pairs(base, candidate, demand, index + 1) for demand in demands)
        standings = {
            race(pairs.drops, demand.margin, alpha=alpha, span=demand.span)[0]
            for pairs, demand in zip(seen, demands, strict=True)
        }
        if standings == {Race.HOLDS} or Race.FUTILE in standings:
            break
    if not seen:
        raise DataError("No certification sample was evaluated.")
    return seen


def _pairs(base: Walk, candidate: Walk, demand: Demand, parts: int) -> Pairs:
    name = demand.metric.name
    return Pairs(base.rows(name, parts), candidate.rows(name, parts), *demand.metric.bounds, walked=True)
