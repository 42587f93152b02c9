"""Probability of a set of counts, and its largest value over the unknown disagreement rate.

The numbers (b, c) of samples that only the base, only the candidate has right are multinomial. With disagreement
rate q and drop d: m = b + c ~ Bin(n, q) and b | m ~ Bin(m, (1 + d/q)/2). A region is given by the largest b that
belongs to it for every m, as `largest_b` returns it.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from scipy.special import bdtr, gammaln

#: Probability that the sums may leave out, relative to the size of the answer; it is added back.
_TAIL = 1e-7
#: Distance of two rates on the search grid, in standard errors; curves bend on a scale of 1.
_STEP = 0.25
_MAX_NODES = 4096
_CHUNK = 32


@dataclass(frozen=True, eq=False)
class Region:
    """A set of counts that is closed downwards in b and upwards in c.

    P(b <= k[m] | m) is carried from m to m + 1 by the recurrences of the binomial distribution: k grows by 0 or 1, so
    one probability is taken away or one is added. A whole curve over q therefore costs two exponentials per term.

    Attributes:
        limits: for each m = 0..n the largest b in the region, -1 for none. Grows by 0 or 1 from m to m + 1.

    Example:
        >>> region = Region(np.array([-1, 0, 1]))  # n = 2: everything but (0, 0) and b = m > 0 at m = 1
        >>> region.probability(np.array([0.5]), 0.0).round(4)  # 0.5 * 0.5 + 0.25 * 0.75
        array([0.4375])
    """

    limits: Int[np.ndarray, " n+1"]
    _rows: tuple[np.ndarray, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n = self.n
        m = np.arange(n)
        grows = np.diff(self.limits)
        moved = self.limits[:-1] + grows
        inside = (moved >= 0) & (moved <= m)
        factorial = gammaln(np.arange(n + 2) + 1.0)
        chosen = np.where(inside, moved, 0)
        log_ways = np.where(inside, factorial[m] - factorial[chosen] - factorial[m - chosen], -np.inf)
        ones, zeros = chosen + 1 - grows, m - chosen + grows
        log_size = factorial[n] - factorial[: n + 1] - factorial[n - np.arange(n + 1)]
        object.__setattr__(self, "_rows", (log_ways, ones, zeros, np.where(grows > 0, 1.0, -1.0), log_size))

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.limits) - 1

    def probability(
        self, q: Float[np.ndarray, " rates"], drop: float, *, tail: float = 1e-12
    ) -> Float[np.ndarray, " rates"]:
        """Return P(region) at each disagreement rate `q >= drop`; at most `tail` too large, never too small."""
        order = np.argsort(q)
        result = np.empty(len(q))
        for start in range(0, len(q), _CHUNK):
            part = order[start : start + _CHUNK]
            result[part] = self._chunk(q[part], drop, tail)
        return np.minimum(result + tail, 1.0)

    def _chunk(self, q: np.ndarray, drop: float, tail: float) -> np.ndarray:
        """Sum over the window of m that holds all but `tail` of the probability, by Bernstein's inequality."""
        n, depth = self.n, math.log(2 / tail)
        half = depth / 3 + np.sqrt((depth / 3) ** 2 + 2 * depth * n * q * (1 - q))
        first = np.clip(np.floor(n * q - half).astype(int), 0, n)
        last = np.clip(np.ceil(n * q + half).astype(int), 0, n)
        m = first[:, None] + np.arange(int((last - first).max()) + 1)
        weights = self._sizes(np.minimum(m, n), q[:, None]) * (m <= last[:, None])
        above = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
        steps = self._steps(np.minimum(m[:, :-1], n - 1), q[:, None], drop)
        start = _binomial_cdf(self.limits[first], first, _share(q, drop))
        return np.clip(start * above[:, 0] + (steps * above[:, 1:]).sum(axis=1), 0.0, 1.0)

    def _sizes(self, m: np.ndarray, q: np.ndarray) -> np.ndarray:
        log_size = self._rows[4]
        return np.exp(log_size[m] + m * np.log(q) + (self.n - m) * np.log(np.maximum(1 - q, 1e-300)))

    def _steps(self, m: np.ndarray, q: np.ndarray, drop: float) -> np.ndarray:
        log_ways, ones, zeros, sign, _ = self._rows
        log_one = np.log(_share(q, drop))
        log_zero = np.log(np.maximum((q - drop) / (2 * q), 1e-300))
        return sign[m] * np.exp(log_ways[m] + ones[m] * log_one + zeros[m] * log_zero)

    def largest_probability(self, margin: float, *, expected: float = 1.0) -> float:
        """Return the largest P(region) over all disagreement rates when the drop is exactly `margin`.

        With q = margin + (1 - margin) sin^2(t), equal steps of t are at most equal steps of standard error, and the
        probability is a smooth curve of t. The grid is fine enough to see every bend; around the highest nodes it is
        refined. What a cubic through the nodes could still miss is added, so that the answer is never too small.

        Args:
            margin: the drop, in [0, 1).
            expected: rough size of the answer; the sums are carried to a small fraction of it.
        """
        tail = max(_TAIL * expected, 1e-290)
        nodes = min(math.ceil(math.pi * math.sqrt(self.n) / _STEP) + 1, _MAX_NODES)
        angles, width = np.linspace(0.0, math.pi / 2, nodes, retstep=True)

        def curve(t: np.ndarray) -> np.ndarray:
            q = np.clip(margin + (1 - margin) * np.sin(t) ** 2, max(margin, 1e-12), 1.0)
            return self.probability(q, margin, tail=tail)

        values = curve(angles)
        for _ in range(3):
            peaks = angles[np.argsort(values)[-4:]]
            width /= 4
            angles = np.clip(peaks[:, None] + width * np.arange(-4, 5), 0.0, math.pi / 2).ravel()
            values = curve(angles)
        best = float(values.max())
        return min(best + min(1e-5, 1e-3 * best), 1.0)


def _share(q: np.ndarray, drop: float) -> np.ndarray:
    """Return the probability that a discordant sample is one that only the base has right."""
    return np.minimum((q + drop) / (2 * q), 1.0)


def _binomial_cdf(k: np.ndarray, n: np.ndarray, p: np.ndarray) -> np.ndarray:
    inside = bdtr(np.maximum(k, 0).astype(float), n, p)
    return np.where(k < 0, 0.0, np.where(k >= n, 1.0, inside))
