"""A Demand: one metric that must hold, on all samples or on a subgroup of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tersor._check import positive
from tersor.certification.certificate import Claim
from tersor.certification.evidence.bootstrap import resample, resample_counts
from tersor.certification.evidence.outcomes import Outcomes, PairedTest, Pairs
from tersor.certification.evidence.registry import TESTS
from tersor.errors import ArgumentError, DataError
from tersor.loading.metric import Metric


@dataclass(frozen=True, slots=True)
class Demand:
    """One requirement. Several demands together are an intersection-union test: each at the full level.

    Attributes:
        metric: how quality is measured.
        margin: largest drop that is accepted, in the unit of the metric: one point of accuracy is 0.01.
        group: name of the subgroup; empty for all samples.
        members: which samples belong to the subgroup, from their targets; None for all.
        units: for each certification sample the number of what it belongs to (a user, a video), where samples of the
            same unit depend on one another; scores are averaged over each unit. None if samples are independent.
        draws: bootstrap draws, for metrics of a whole set.

    Raises:
        ArgumentError: if the margin is not positive or accepts any drop that the bounds allow, or if units are given
            for a metric without scores.

    Source:
        Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24 (1982): a union of
        hypotheses is rejected at level alpha if each one is, without a correction.
    """

    metric: Metric
    margin: float
    group: str = ""
    members: Callable[[Tensor], Bool[Tensor, " samples"]] | None = None
    units: Int[np.ndarray, " samples"] | None = None
    draws: int = 10_000

    def __post_init__(self) -> None:
        positive("margin", self.margin)
        if self.units is not None and self.metric.scores is None:
            raise ArgumentError(
                f"{self.metric.name} has no score for each sample, so units cannot be averaged."
            )
        low, high = self.metric.bounds
        if self.metric.scores is not None and self.margin >= high - low:
            raise ArgumentError(
                f"A margin of {self.margin:g} accepts anything: {self.metric.name} lies in [{low:g}, {high:g}]. "
                "Margins are in the unit of the metric; one point of accuracy is 0.01."
            )

    @property
    def bounded(self) -> bool:
        """Whether every sample has a score with finite bounds."""
        return self.metric.scores is not None and math.isfinite(self.metric.bounds[1] - self.metric.bounds[0])

    @property
    def span(self) -> float:
        """Largest drop that the bounds of the metric allow; 100 margins where they do not say."""
        return self.metric.bounds[1] - self.metric.bounds[0] if self.bounded else 100 * self.margin

    @property
    def needs_targets(self) -> bool:
        """Whether outcomes cannot be told from scores alone."""
        return self.metric.scores is None or self.members is not None

    def claim(self, confidence: float, labelled: bool, drawn: str = "") -> Claim:
        """Return what is to be shown."""
        up = self.metric.higher_is_better
        return Claim(self.metric.name, self.margin, confidence, up, labelled, self.group, drawn)

    def likely_test(self, labelled: bool) -> PairedTest:
        """Return the strongest test that could apply, before any score is known."""
        if not self.bounded:
            return TESTS["bca"]
        if self.metric.bounds != (0.0, 1.0):
            return TESTS["betting"]
        return TESTS["exact score" if labelled else "agreement"]

    def outcomes(self, base: np.ndarray, candidate: np.ndarray, target: Tensor | None) -> Outcomes:
        """Return what the tests look at, turned so that a positive drop is worse.

        Raises:
            DataError: if the subgroup is empty, or a score is outside its bounds.
        """
        units = self.units
        if self.members is not None and target is not None:
            chosen = self._chosen(target)
            base, candidate, target = base[chosen], candidate[chosen], target[torch.from_numpy(chosen)]
            units = None if units is None else units[chosen]
        if self.metric.scores is None:
            return self._resampled(torch.from_numpy(base), torch.from_numpy(candidate), target)
        if units is not None:
            base, candidate = _unit_means(base, units), _unit_means(candidate, units)
        # Scores are higher-is-better whatever the direction of the metric; see `Metric`.
        return Pairs(base, candidate, *self.metric.bounds)

    def _chosen(self, target: Tensor) -> np.ndarray:
        assert self.members is not None
        chosen = self.members(target).cpu().numpy().astype(bool)
        if not chosen.any():
            raise DataError(
                f"No certification sample belongs to {self.group!r}. Check `members`, or add samples."
            )
        return chosen

    def _resampled(self, base: Tensor, candidate: Tensor, target: Tensor | None) -> Outcomes:
        sign = 1.0 if self.metric.higher_is_better else -1.0
        answers = torch.empty(len(base)) if target is None else target
        if self.metric.recount is not None:
            before, after = self.metric.recount(base, answers), self.metric.recount(candidate, answers)
            drops = lambda counts: sign * (before(counts) - after(counts))
            return resample_counts(drops, len(base), draws=self.draws)

        def drop(index: np.ndarray) -> float:
            drawn, value = torch.from_numpy(index), self.metric.value
            return sign * (value(base[drawn], answers[drawn]) - value(candidate[drawn], answers[drawn]))

        return resample(drop, len(base), draws=self.draws)


def _unit_means(scores: np.ndarray, units: np.ndarray) -> Float[np.ndarray, " units"]:
    """Return the mean score of each unit, in ascending order of the units' numbers."""
    if len(units) != len(scores):
        raise DataError(
            f"Units are given for {len(units)} samples, and {len(scores)} are scored. Give one for each."
        )
    _, member = np.unique(units, return_inverse=True)
    return np.bincount(member, weights=scores) / np.bincount(member)
