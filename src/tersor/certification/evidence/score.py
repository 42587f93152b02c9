"""Tango's score for a paired difference of proportions, and the counts that it calls extreme."""

import numpy as np
from jaxtyping import Float, Int


def score(b: np.ndarray | float, c: np.ndarray | float, n: int, margin: float) -> Float[np.ndarray, "..."]:
    r"""Return Tango's standardized distance of the observed drop from the margin.

    $$z = \frac{b - c - n\delta}{\sqrt{n(2\tilde p + \delta(1 - \delta))}}, \qquad
      \tilde p = \frac{\sqrt{B^2 - 4AC} - B}{2A}$$

    with $A = 2n$, $B = -b - c + (2n - b + c)\delta$, $C = -c\delta(1 - \delta)$: $\tilde p$ is the maximum
    likelihood estimate of P(only the candidate is right) when the drop is exactly $\delta$. The score grows with `b`
    and falls with `c`; very negative means that the drop is below the margin.

    Args:
        b: samples on which only the base is right.
        c: samples on which only the candidate is right.
        n: samples.
        margin: the drop $\delta$ of the null hypothesis, in [0, 1).

    Example:
        >>> float(score(120, 90, 5000, 0.01).round(4))
        -1.3673

    Source:
        Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design, Statistics in Medicine 17 (1998), equations 4 and 8.
    """
    b, c = np.asarray(b, dtype=np.float64), np.asarray(c, dtype=np.float64)
    linear = -b - c + (2 * n - b + c) * margin
    constant = -c * margin * (1 - margin)
    root = np.sqrt(linear * linear - 8 * n * constant)
    # Both forms are the same root; each is used where it does not cancel.
    positive = linear > 0
    safe = np.where(positive, linear + root, 1.0)
    p = np.where(positive, -2 * constant / safe, (root - linear) / (4 * n))
    spread = np.sqrt(n * (2 * p + margin * (1 - margin)))
    return np.where(spread > 0, (b - c - n * margin) / np.where(spread > 0, spread, 1.0), 0.0)


def largest_b(n: int, margin: float, threshold: float) -> Int[np.ndarray, " n+1"]:
    """Return, for each number of discordant samples m = b + c, the largest b whose score is at most `threshold`.

    -1 where no b qualifies. The set of counts below a threshold is described completely by these numbers, because
    the score grows with b when m is fixed.

    Example:
        >>> largest_b(5, 0.3, -1.2)
        array([0, 0, 0, 1, 1, 1])
    """
    m = np.arange(n + 1)
    low, high = np.full(n + 1, -1), m.copy()
    while np.any(low < high):
        middle = (low + high + 1) // 2
        below = score(middle, m - middle, n, margin) <= threshold
        low, high = np.where(below, middle, low), np.where(below, high, middle - 1)
        high = np.maximum(high, low)
    return low
