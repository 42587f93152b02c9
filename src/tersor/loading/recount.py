"""Metrics of a whole set where each sample counts so many times: a redrawn set needs no pass over its outputs."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

#: Values of a metric on redrawn sets, from how often each sample is in them.
Recount: TypeAlias = Callable[[Float[np.ndarray, "draws samples"]], Float[np.ndarray, " draws"]]
#: Area under a curve, from the true and the false positives above each threshold, shapes (draws, thresholds).
Area: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]


def of_sums(
    parts: np.ndarray | sparse.csr_array, value: Callable[[Float[np.ndarray, "draws sums"]], np.ndarray]
) -> Recount:
    """Return the metric that sums over samples decide.

    Args:
        parts: what each sample adds to the sums, shape (samples, sums).
        value: metric of sums, shape (draws,).

    Example:
        >>> mean = of_sums(np.array([[1.0, 1.0], [4.0, 1.0]]), lambda sums: sums[:, 0] / sums[:, 1])
        >>> mean(np.array([[1.0, 1.0], [2.0, 1.0]]))
        array([2.5, 2. ])
    """
    return lambda counts: value(counts @ parts)


def class_counts(
    said: Int[np.ndarray, "samples positions"], wanted: Int[np.ndarray, "samples positions"], classes: int
) -> sparse.csr_array:
    """Return how often each sample is right about each class, claims it and shows it, shape (samples, 3 * classes).

    Args:
        said: classes that the model names.
        wanted: true classes; positions where they are negative do not count.
        classes: how many there are.

    Example:
        >>> class_counts(np.array([[0], [1]]), np.array([[0], [0]]), 2).toarray()
        array([[1., 0., 1., 0., 1., 0.],
               [0., 0., 0., 1., 1., 0.]])
    """
    kept = wanted >= 0
    columns = ((said, kept & (said == wanted)), (said, kept), (wanted, kept))
    return sparse.csr_array(sparse.hstack([_tally(labels, counted, classes) for labels, counted in columns]))


def _tally(labels: np.ndarray, counted: np.ndarray, classes: int) -> sparse.coo_array:
    rows = np.nonzero(counted)[0]
    return sparse.coo_array((np.ones(len(rows)), (rows, labels[counted])), shape=(len(labels), classes))


def of_ranks(
    scores: Float[np.ndarray, "samples classes"],
    wanted: Bool[np.ndarray, "samples classes"],
    area: Area,
    absent: float = 0.0,
) -> Recount:
    """Return the mean over classes of an area under a curve.

    Args:
        scores: higher where the model is surer that the sample is of the class.
        wanted: whether it is.
        area: of one class.
        absent: area of a class that no drawn sample is of; those that are not a number are left out of the mean.
    """

    def under(sums: np.ndarray) -> np.ndarray:
        right, wrong = (np.cumsum(part, axis=1) for part in np.split(sums, 2, axis=1))
        return np.where(right[:, -1] > 0, area(right, wrong), absent)

    curves = [of_sums(_steps(*pair), under) for pair in zip(scores.T, wanted.T, strict=True)]

    def mean(counts: np.ndarray) -> np.ndarray:
        areas = np.array([curve(counts) for curve in curves])
        told = np.isfinite(areas)
        return ratio(np.where(told, areas, 0.0).sum(0), told.sum(0), otherwise=np.nan)

    return mean


def _steps(scores: np.ndarray, wanted: np.ndarray) -> sparse.csr_array:
    """Return between which thresholds each sample counts, as true or as false, shape (samples, 2 * thresholds).

    Samples of equal score lie on one side of every threshold, and thresholds among false samples alone are left out:
    no area changes there. A good model has few others.
    """
    order = np.argsort(-scores, kind="stable")
    ties = np.append(0, np.cumsum(np.diff(scores[order]) != 0))
    false = np.bincount(ties, wanted[order]) == 0
    step = np.append(0, np.cumsum(~(false[1:] & false[:-1])))[ties]
    columns = np.where(wanted[order], step, step + step[-1] + 1)
    return sparse.csr_array((np.ones(len(order)), (order, columns)), shape=(len(order), 2 * (step[-1] + 1)))


def area_under_roc(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return the area under the true positive rate over the false positive rate; 0 where there is one class only.

    Example:
        >>> area_under_roc(np.array([[1.0, 1.0, 2.0]]), np.array([[0.0, 1.0, 1.0]]))
        array([0.5])
    """
    heights = (right + _before(right)) / 2
    steps = wrong - _before(wrong)
    return ratio((heights * steps).sum(1), right[:, -1] * wrong[:, -1])


def average_precision(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return the mean of the precision over the steps of the recall.

    Example:
        >>> average_precision(np.array([[1.0, 1.0, 2.0]]), np.array([[0.0, 1.0, 1.0]])).round(3)
        array([0.833])
    """
    steps = right - _before(right)
    return ratio((steps * ratio(right, right + wrong)).sum(1), right[:, -1])


def ratio(above: np.ndarray, below: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """Return quotients, and `otherwise` where the denominator is zero.

    Example:
        >>> ratio(np.array([1.0, 1.0]), np.array([4.0, 0.0]))
        array([0.25, 0.  ])
    """
    return np.divide(above, below, out=np.full(np.shape(above), otherwise), where=below != 0)


def _before(values: np.ndarray) -> np.ndarray:
    """Return the values one threshold higher, nothing above the highest."""
    return np.pad(values, ((0, 0), (1, 0)))[:, :-1]
