"""Which sequence of finalists is expected to certify most: every test before the boldest is a chance to stop early."""

import math
from collections.abc import Sequence
from itertools import accumulate, combinations

import numpy as np
from jaxtyping import Bool, Float, Num
from scipy.stats import norm

from tersor.certification.evidence.power import rejection_region

#: Sealed samples that are simulated, and candidates among which sequences are compared.
_DRAWS, _MOST = 400, 10
#: Gains are compared in steps of this many doublings, so that the noise of a measurement does not choose.
_GRID = 0.125
#: Disagreements assumed on top of those seen for a network of which nothing was taken, and of which everything was.
_PRIOR, _OWN = (0.1, 2.0), 0.05
#: The search data chose these candidates, so they look better there than elsewhere: a sample counts half.
_COUNTS = 0.5


def outlook(
    differences: Float[np.ndarray, "n k"],
    taken: Sequence[float],
    *,
    samples: int,
    margin: float,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bool[np.ndarray, "draws k"]:
    """Return in which simulated sealed data sets each candidate would be certified, all on the same samples.

    What is seen on the search data is resampled with random weights (Bayesian bootstrap), so that candidates which
    fail on the same samples fail together, and so that few search samples give wide prospects. Each candidate is
    assumed to differ on a little more than was seen, the more of the network was taken away, and to lose some of
    what milder ones lose. Where one won more than it lost, part of that is taken for the luck of the search data: the
    more of it, the fewer samples tell.

    Args:
        differences: scores of the original minus those of each candidate, mild to bold, on the search samples.
        taken: share of the work of the original that each candidate spares, in [0, 1].
        samples: sealed samples.
        margin: largest drop.
        confidence: of the certificate.
        seed: of the draws.

    Example:
        >>> same, worse = np.zeros(500), np.repeat([1.0, 0.0], [9, 491])
        >>> passes = outlook(np.stack([same, worse], axis=1), (0.1, 0.9), samples=1000, margin=0.02)
        >>> bool(passes[:, 0].mean() > 0.95), bool(passes[:, 1].mean() < 0.5)
        (True, True)

    Source:
        Rubin, The Bayesian bootstrap, Annals of Statistics 9(1), 1981.
    """
    rng = np.random.default_rng(seed)
    exact = bool(np.isin(differences, (-1.0, 0.0, 1.0)).all())
    patterns, counts = _without_luck(*np.unique(differences, axis=0, return_counts=True), margin)
    size = 1.0 if exact else float(np.abs(differences).max(initial=margin))
    weights = np.interp(taken, (0.0, 1.0), _PRIOR)
    # Half of what a milder candidate loses, those after it lose as well; the rest, and what one wins, is its own.
    common, own = size * np.triu(np.ones((len(taken), len(taken)))), size * np.eye(len(taken))
    further = np.diff(np.maximum.accumulate(weights), prepend=0.0) + _OWN
    cells = np.concatenate([patterns, common, own, -own])
    prior = np.concatenate([0.3 * further, 0.3 * weights, 0.4 * weights])
    held = np.concatenate([_COUNTS * counts, prior])
    cells, held = cells[held > 0], held[held > 0]
    shares = rng.dirichlet(held, size=_DRAWS)
    drawn = rng.multinomial(samples, shares)
    if exact:
        limits = rejection_region(samples, margin, 1 - confidence).limits
        worse, better = drawn @ (cells > 0), drawn @ (cells < 0)
        return worse <= limits[worse + better]
    mean, square = drawn @ cells / samples, drawn @ cells**2 / samples
    spread = np.sqrt(np.maximum(square - mean**2, (margin * size) / samples) / samples)
    return mean + norm.ppf(confidence) * spread <= margin


def _without_luck(
    patterns: Float[np.ndarray, "m k"], counts: Num[np.ndarray, " m"], margin: float
) -> tuple[Float[np.ndarray, "2*m k"], Float[np.ndarray, " 2*m"]]:
    r"""Return patterns with their counts, where of each candidate that won more than it lost some wins are losses.

    The share of a net win that is luck, for true differences that spread about zero by the margin $\delta$:

    $$\frac{v}{v + \delta^2}, \qquad v = \frac{1}{n^2} \sum_i d_i^2$$

    Those that won on the same samples lose on the same: a pattern is turned for all of them, as often as the one that
    it is needed for most.
    """
    won, lost = counts @ np.maximum(-patterns, 0), counts @ np.maximum(patterns, 0)
    error = counts @ patterns**2 / counts.sum() ** 2
    luck = error / (error + margin**2)
    turned = luck * np.maximum(won - lost, 0) / np.maximum(2 * won, np.finfo(float).tiny)
    part = np.max((patterns < 0) * turned, axis=1, initial=0.0)
    turned_over = np.where((patterns < 0) & (turned > 0), -patterns, patterns)
    return np.concatenate([patterns, turned_over]), np.concatenate([counts * (1 - part), counts * part])


def best_sequence(gains: Sequence[float], passes: Bool[np.ndarray, "draws k"], most: int) -> tuple[int, ...]:
    r"""Return which candidates to test, in their order: those of the largest expected logarithm of the certified gain.

    Testing stops at the first that is refused, and the last that passed is the answer:

    $$E = \sum_i P(\text{1 to } i \text{ pass}) \, (\log g_i - \log g_{i-1}), \qquad g_0 = 1$$

    Args:
        gains: how many times better each is, in the order in which they would be tested.
        passes: in which simulated data sets each is certified.
        most: largest number of finalists.

    Example:
        >>> passes = np.array([[True, False, True], [True, False, True], [True, True, False]])
        >>> best_sequence((2.0, 2.1, 4.0), passes, 8)  # the one in the middle would only stop the test
        (0, 2)
    """
    steps = accumulate((round(math.log2(max(gain, 1.0)) / _GRID) for gain in gains), max)
    # Each is better than those before it, by its time or by its work: of two in the same step the later one.
    worth = [_GRID * (step + 0.1 * place / len(gains)) for place, step in enumerate(steps)]
    likely = sorted(range(len(gains)), key=lambda i: -passes[:, i].mean() * worth[i])[:_MOST]
    able = sorted(likely)
    best, value = (able[0],) if able else (), -1.0
    for count in range(1, min(most, len(able)) + 1):
        for chosen in combinations(able, count):
            found = _expected(chosen, worth, passes)
            if found > value + 1e-9:
                best, value = chosen, found
    return best


def _expected(chosen: Sequence[int], worth: Sequence[float], passes: np.ndarray) -> float:
    still, before, total = np.ones(len(passes), bool), 0.0, 0.0
    for index in chosen:
        still = still & passes[:, index]
        now = max(before, worth[index])
        total += float(still.mean()) * (now - before)
        before = now
    return total
