"""The exact unconditional non-inferiority test for paired right/wrong outcomes."""

from dataclasses import dataclass
from typing import ClassVar

from scipy.special import ndtr

from tersor._check import fraction
from tersor.certification.evidence.outcomes import Evidence, Outcomes, Pairs, count_evidence
from tersor.certification.evidence.region import Region
from tersor.certification.evidence.score import largest_b, score
from tersor.errors import ArgumentError, DataError

#: Scores closer than this are the same score computed in two ways.
_TIE = 1e-9


def exact_p(b: int, c: int, n: int, margin: float) -> float:
    r"""Return the exact unconditional p-value against "the drop is at least `margin`".

    $$p = \max_{q \in [\delta, 1]} P_{q,\delta}(Z \le z_{obs})$$

    over the unknown disagreement rate q, with Z Tango's score. The region $\{Z \le z\}$ is closed downwards in b and
    upwards in c, so its probability under any larger drop is smaller, and the maximum over the composite
    hypothesis lies on its edge. Valid for every n; no approximation is involved beyond a slack of 1e-5 (relative
    1e-3 for tiny p) that is added.

    Args:
        b: samples on which only the base is right.
        c: samples on which only the candidate is right.
        n: samples in all.
        margin: drop in accuracy that is refused, in [0, 1): 0.01 is one point.

    Returns:
        The p-value, in (0, 1].

    Raises:
        ArgumentError: if the counts are not counts of n samples, or the margin is not a fraction.

    Example:
        >>> round(exact_p(60, 50, 2000, 0.01), 4)
        0.175

    Source:
        Tango 1998 for the score; Berger and Sidik, Exact unconditional tests for a 2x2 matched-pairs design,
        Statistical Methods in Medical Research 12 (2003), section 3, for the maximum.
    """
    fraction("margin", margin)
    if not (b >= 0 and c >= 0 and n >= 1 and b + c <= n):
        raise ArgumentError(f"Counts must be b, c >= 0 with b + c <= n and n >= 1, got b={b}, c={c}, n={n}.")
    observed = float(score(b, c, n, margin))
    limits = largest_b(n, margin, observed + _TIE)
    return Region(limits).largest_probability(margin, expected=float(ndtr(observed)))


@dataclass(frozen=True, slots=True)
class ExactScore:
    """Exact unconditional score test for outcomes that are right or wrong. Formula and source: `exact_p`.

    Example:
        >>> evidence = ExactScore()(Pairs([1] * 400 + [0] * 100, [1] * 405 + [0] * 95), margin=0.02)
        >>> evidence.b, evidence.c, round(evidence.p, 5)
        (0, 5, 5e-05)
    """

    name: ClassVar[str] = "exact score"
    version: ClassVar[str] = "1"
    kind: ClassVar[str] = "exact"

    def __call__(self, outcomes: Outcomes, margin: float) -> Evidence:
        """Return the exact p-value.

        Raises:
            DataError: if a score is neither 0 nor 1.
        """
        if not isinstance(outcomes, Pairs) or not outcomes.binary:
            raise DataError(
                "The exact test needs scores that are 0 or 1. Use 'betting' for other bounded scores."
            )
        b, c = outcomes.counts()
        return count_evidence(outcomes, exact_p(b, c, len(outcomes), margin))
