"""The tests by name, and which one fits a metric."""

import math

import numpy as np

from tersor.certification.evidence.agreement import Agreement
from tersor.certification.evidence.betting import Betting
from tersor.certification.evidence.bootstrap import BCa
from tersor.certification.evidence.exact import ExactScore
from tersor.certification.evidence.outcomes import Outcomes, PairedTest, Pairs
from tersor.certification.evidence.tango import Tango

TESTS: dict[str, PairedTest] = {
    test.name: test for test in (ExactScore(), Betting(), Agreement(), BCa(), Tango())
}


def fitting_test(outcomes: Outcomes, *, labelled: bool = True) -> PairedTest:
    """Return the strongest test that is valid for these outcomes.

    Right or wrong: exact. Bounded scores: betting. Metrics of a whole set and unbounded scores: the bootstrap, which
    is asymptotic. Without labels: the exact test on disagreement. Evaluated only until the decision: betting.

    Example:
        >>> fitting_test(Pairs([1, 0], [1, 1])).name
        'exact score'
        >>> fitting_test(Pairs([0.5, 0.1], [1, 1])).name
        'betting'
    """
    if not isinstance(outcomes, Pairs) or not math.isfinite(outcomes.high - outcomes.low):
        return TESTS["bca"]
    if outcomes.walked:
        return TESTS["betting"]
    if not labelled and outcomes.binary:
        return TESTS["agreement"]
    return TESTS["exact score"] if outcomes.binary else TESTS["betting"]


def smallest_p(test: PairedTest, n: int, margin: float, *, span: float = 1.0) -> float:
    """Return the p-value that `n` samples give at best: when base and candidate agree on every one.

    Example:
        >>> round(smallest_p(TESTS["agreement"], 100, 0.05) / 0.95**100, 6)
        1.0
    """
    if test.name == "bca":
        return 1 / (BCa().draws + 1)
    agreeing = np.full(n, span)
    return test(Pairs(agreeing, agreeing, 0.0, span), margin).p


def values_shown(test: PairedTest, n: int, finalists: int = 1) -> int:
    """Return how many different results the certificates of this test can show on `n` samples.

    For right/wrong outcomes they show b and c of each finalist and the quality of the base; without labels one count
    each. Other tests show numbers of so many digits that nothing is left for an attempt after them.

    Example:
        >>> values_shown(TESTS["exact score"], 2)
        18
    """
    pairs = (n + 1) * (n + 2) // 2
    return {"exact score": pairs**finalists * (n + 1), "agreement": (n + 1) ** finalists}.get(
        test.name, 10**300
    )
