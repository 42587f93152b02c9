"""Tango's asymptotic test, for comparison and planning."""

from dataclasses import dataclass
from typing import ClassVar

from scipy.special import ndtr

from tersor.certification.evidence.outcomes import Evidence, Outcomes, Pairs, count_evidence
from tersor.certification.evidence.score import score
from tersor.errors import DataError


@dataclass(frozen=True, slots=True)
class Tango:
    r"""Asymptotic score test, $p = \Phi(z)$. Its true size can exceed the level by a few per cent of it.

    Example:
        >>> evidence = Tango()(Pairs([1] * 400 + [0] * 100, [1] * 405 + [0] * 95), margin=0.02)
        >>> round(evidence.p, 5)
        5e-05

    Source:
        Tango, Statistics in Medicine 17 (1998), equation 8.
    """

    name: ClassVar[str] = "tango"
    version: ClassVar[str] = "1"
    kind: ClassVar[str] = "asymptotic"

    def __call__(self, outcomes: Outcomes, margin: float) -> Evidence:
        """Return the asymptotic p-value.

        Raises:
            DataError: if a score is neither 0 nor 1.
        """
        if not isinstance(outcomes, Pairs) or not outcomes.binary:
            raise DataError(
                "Tango's test needs scores that are 0 or 1. Use 'betting' for other bounded scores."
            )
        b, c = outcomes.counts()
        return count_evidence(outcomes, float(ndtr(score(b, c, len(outcomes), margin))))
