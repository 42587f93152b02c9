"""An upper confidence bound of the drop, by inverting a test."""

from tersor.certification.evidence.outcomes import Outcomes, PairedTest


def upper_bound(test: PairedTest, outcomes: Outcomes, alpha: float, *, span: float = 1.0) -> float | None:
    """Return the smallest margin that `test` shows at level `alpha`, rounded up to 1e-4 of the span.

    Never below 0: candidates that are shown to be better than their base get 0.

    Args:
        test: the test to invert; its p-value falls as the margin grows.
        outcomes: base and candidate on the same samples.
        alpha: level of the bound.
        span: largest drop that there can be.

    Returns:
        The bound in the unit of the metric, or None if no margin below `span` is shown.

    Example:
        >>> from tersor.certification.evidence.exact import ExactScore
        >>> from tersor.certification.evidence.outcomes import Pairs
        >>> base, candidate = [1] * 990 + [0] * 10, [0] * 12 + [1] * 988
        >>> upper_bound(ExactScore(), Pairs(base, candidate), 0.05)
        0.0105
    """
    steps = 10_000
    low, high = 0, steps
    if test(outcomes, span * (steps - 1) / steps).p > alpha:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if test(outcomes, span * middle / steps).p <= alpha else (middle + 1, high)
    return span * high / steps
