"""The exact test for data without labels: how often does the candidate decide differently from its base?"""

from dataclasses import dataclass
from typing import ClassVar

from scipy.stats import binom

from tersor.certification.evidence.outcomes import Evidence, Outcomes, Pairs, count_evidence
from tersor.errors import DataError


@dataclass(frozen=True, slots=True)
class Agreement:
    r"""Exact binomial test against "the candidate differs from its base on at least a fraction `margin`".

    $$p = P(\mathrm{Bin}(n, \delta) \le k)$$

    with k the samples on which the two differ. It says nothing about being right: no label was seen. The base
    scores 1 on every sample, the candidate 1 where it agrees.

    Example:
        >>> round(Agreement()(Pairs([1] * 500, [0] * 2 + [1] * 498), margin=0.02).p, 4)
        0.0026

    Source:
        Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
        Biometrika 26 (1934).
    """

    name: ClassVar[str] = "agreement"
    version: ClassVar[str] = "1"
    kind: ClassVar[str] = "exact"

    def __call__(self, outcomes: Outcomes, margin: float) -> Evidence:
        """Return the exact p-value.

        Raises:
            DataError: if the base does not agree with itself, or a score is neither 0 nor 1.
        """
        if not isinstance(outcomes, Pairs) or not outcomes.binary or not outcomes.base.all():
            raise DataError(
                "Agreement needs a base that scores 1 on every sample, and candidate scores of 0 or 1."
            )
        differing, _ = outcomes.counts()
        return count_evidence(outcomes, float(binom.cdf(differing, len(outcomes), margin)))
