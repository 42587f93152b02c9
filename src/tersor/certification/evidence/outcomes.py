"""What the tests look at, and what they say: Pairs and Resampled in, Evidence out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from tersor.errors import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Scores of the base and of a candidate on the same samples, higher is better.

    Attributes:
        base: scores of the base, one per sample.
        candidate: scores of the candidate, in the same order.
        low: lowest possible score.
        high: highest possible score.
        walked: whether the samples are in an order that was drawn beforehand and may end anywhere, because they were
            evaluated only until the decision.

    Raises:
        DataError: if the lengths differ, there is no sample, or a score is not a number within the bounds.

    Example:
        >>> Pairs([1, 1, 0], [1, 0, 0]).drops
        array([0., 1., 0.])
    """

    base: Float[np.ndarray, " samples"]
    candidate: Float[np.ndarray, " samples"]
    low: float = 0.0
    high: float = 1.0
    walked: bool = False

    def __post_init__(self) -> None:
        for name in ("base", "candidate"):
            scores = np.asarray(getattr(self, name), dtype=np.float64)
            _check_scores(name, scores, self.low, self.high)
            object.__setattr__(self, name, scores)
        if self.base.shape != self.candidate.shape:
            raise DataError(
                f"The base has {len(self.base)} scores and the candidate {len(self.candidate)}. "
                "Both must be scored on the same samples in the same order."
            )

    def __len__(self) -> int:
        return len(self.base)

    @property
    def drops(self) -> Float[np.ndarray, " samples"]:
        """How much worse the candidate is on each sample."""
        return self.base - self.candidate

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return all(bool(np.isin(scores, (0.0, 1.0)).all()) for scores in (self.base, self.candidate))

    def counts(self) -> tuple[int, int]:
        """Return how many samples only the base has right, and how many only the candidate."""
        drops = self.drops
        return int((drops > 0).sum()), int((drops < 0).sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that `from_arrays` needs."""
        rows = {"base": self.base, "candidate": self.candidate, "bounds": np.array([self.low, self.high])}
        return {**rows, "walked": np.array(True)} if self.walked else rows


def _check_scores(name: str, scores: np.ndarray, low: float, high: float) -> None:
    if scores.ndim != 1 or not len(scores):
        raise DataError(
            f"The {name} scores must be one number per sample, got an array of shape {scores.shape}."
        )
    outside = ~((scores >= low) & (scores <= high))
    if outside.any():
        where = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"{int(outside.sum())} of {len(scores)} {name} scores are not numbers in [{low:g}, {high:g}]; the first is "
            f"{scores[where]!r} at sample {where}. Correct the metric's `bounds`, or the data."
        )


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """The drop of a metric that is defined on a whole set only, and how it varies when samples are redrawn.

    Attributes:
        estimate: the drop on all samples, in the unit of the metric.
        replicates: the drop on each bootstrap draw.
        jackknife: the drop without each group of samples.
        samples: number of samples.
    """

    estimate: float
    replicates: Float[np.ndarray, " draws"]
    jackknife: Float[np.ndarray, " groups"]
    samples: int

    def __len__(self) -> int:
        return self.samples

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that `from_arrays` needs."""
        head = np.array([self.estimate, self.samples], dtype=np.float64)
        return {"head": head, "replicates": self.replicates, "jackknife": self.jackknife}


Outcomes: TypeAlias = Pairs | Resampled


def from_arrays(arrays: dict[str, np.ndarray]) -> Outcomes:
    """Return the outcomes that `arrays()` took apart.

    Raises:
        DataError: if the arrays are of neither kind.

    Example:
        >>> from_arrays(Pairs([1, 0], [1, 1]).arrays()).candidate
        array([1., 1.])
    """
    try:
        if "head" in arrays:
            estimate, samples = arrays["head"]
            return Resampled(float(estimate), arrays["replicates"], arrays["jackknife"], int(samples))
        low, high = arrays["bounds"]
        return Pairs(arrays["base"], arrays["candidate"], float(low), float(high), "walked" in arrays)
    except KeyError as error:
        raise DataError(f"These are not stored outcomes: {error} is missing.") from error


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one test says about one candidate.

    Attributes:
        p: p-value against "the drop is at least the margin"; small means that the candidate holds.
        estimate: the observed drop, in the unit of the metric. Descriptive only.
        n: number of samples.
        b: samples on which only the base is right (the candidate is worse); None where samples are not scored.
        c: samples on which only the candidate is right (the candidate is better); None likewise.
        disagreement: fraction of samples on which they differ; None likewise.
    """

    p: float
    estimate: float
    n: int
    b: int | None = None
    c: int | None = None
    disagreement: float | None = None


class PairedTest(Protocol):
    """A test of "the drop is at least `margin`" against "it is smaller"."""

    name: ClassVar[str]
    version: ClassVar[str]
    kind: ClassVar[str]

    def __call__(self, outcomes: Outcomes, margin: float) -> Evidence:
        """Return the evidence that the drop is below `margin`, in the unit of the metric."""
        ...


def count_evidence(pairs: Pairs, p: float) -> Evidence:
    """Return evidence with the counts and the estimate that `pairs` give.

    Example:
        >>> count_evidence(Pairs([1, 1, 0, 1], [1, 0, 0, 1]), p=0.5)
        Evidence(p=0.5, estimate=0.25, n=4, b=1, c=0, disagreement=0.25)
    """
    b, c = pairs.counts()
    return Evidence(p, float(pairs.drops.mean()), len(pairs), b, c, (b + c) / len(pairs))


Statistic: TypeAlias = Callable[[Int[np.ndarray, " drawn"]], float]
