"""The exact test for data without labels: how often does the candidate decide differently from its base?"""

from dataclasses import dataclass
from typing import ClassVar

from scipy.stats import binom

from tersor.certification.evidence.outcomes import Evidence, Outcomes, Pairs
from tersor.errors import DataError


@dataclass(frozen=True, slots=True)
class Agreement:
    r"""Exact binomial test against "the candidate differs from its base on at least a fraction `margin`".

    $$p = P(\mathrm{Bin}(n, \delta) \le k)$$

    with k the samples on which the candidate's decision is not that of the original model. It says nothing about
    being right: no label was seen. Candidates score 1 where they agree; the scores of the exported base are not used.

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
            DataError: if a score is neither 0 nor 1.
        """
        if not isinstance(outcomes, Pairs) or not outcomes.binary:
            raise DataError("Agreement needs scores of 0 or 1. Use 'betting' for other bounded scores.")
        n, differing = len(outcomes), int((outcomes.candidate == 0).sum())
        return Evidence(float(binom.cdf(differing, n, margin)), differing / n, n, differing, 0, differing / n)
