"""How many samples a claim needs, and which margin a number of samples can show: answered before the data is opened."""

import math
from dataclasses import dataclass

from scipy.special import ndtri

from tersor._check import fraction, positive
from tersor.certification.ledger import attempt_alpha
from tersor.errors import ArgumentError

#: Level of the first attempt on sealed data when all attempts together may err with 5 per cent.
FIRST_ALPHA = attempt_alpha(0.05, 1)


def samples_needed(
    margin: float,
    q: float,
    *,
    drop: float = 0.0,
    alpha: float = FIRST_ALPHA,
    power: float = 0.8,
    betting: bool = False,
) -> int:
    r"""Return about how many samples certify `margin` with probability `power`.

    $$n \approx (z_{1-\alpha} + z_{power})^2 \frac{q}{(\delta - \Delta)^2}$$

    but never fewer than would do without any difference, $\ln\alpha / \ln(1 - \delta)$. For the betting test the
    first factor is $(z_{power} + \sqrt{z_{power}^2 + 2\ln(1/\alpha)})^2$.

    Args:
        margin: largest drop that is accepted.
        q: how often base and candidate differ: the mean of the squared differences of their scores.
        drop: the true drop that is expected.
        alpha: level of the attempt; by default that of a first attempt at 95 per cent confidence.
        power: wanted probability of a certificate.
        betting: whether scores are not just right or wrong, so that the betting test applies.

    Raises:
        ArgumentError: if the drop is not below the margin (no number of samples would do), or a rate is no rate.

    Example:
        >>> samples_needed(0.01, 0.03, alpha=0.05)
        1855
        >>> samples_needed(0.01, 0.05, drop=0.005, alpha=0.05)
        12366

    Source:
        Liu et al., Tests for equivalence or non-inferiority for paired binary data, Statistics in Medicine 21 (2002),
        section 5, with the null variance approximated by q.
    """
    _check_rates(q, alpha, power)
    positive("margin", margin)
    if drop >= margin:
        raise ArgumentError(
            f"A true drop of {drop:g} cannot be shown to be within {margin:g}. "
            f"Allow a margin above {drop:g}, or compress less."
        )
    wanted = _factor(alpha, power, betting) * q / (margin - drop) ** 2
    least = math.log(alpha) / math.log1p(-margin) if margin < 1 else 1.0
    return math.ceil(max(wanted, least) - 1e-9)


def smallest_margin(
    n: int,
    q: float,
    *,
    drop: float = 0.0,
    alpha: float = FIRST_ALPHA,
    power: float = 0.8,
    betting: bool = False,
) -> float:
    """Return the smallest margin that `n` samples certify with probability `power`; inverse of `samples_needed`.

    Raises:
        ArgumentError: if n is not a positive number, or a rate is no rate.

    Example:
        >>> round(smallest_margin(2000, 0.05, drop=0.003), 4)
        0.0166
    """
    _check_rates(q, alpha, power)
    positive("n", n)
    return max(drop + math.sqrt(_factor(alpha, power, betting) * q / n), 1 - alpha ** (1 / n))


@dataclass(frozen=True, slots=True)
class Outlook:
    """What can be expected of a certification before the sealed data is opened.

    Attributes:
        samples: certification samples at hand.
        margin: margin that is asked for.
        smallest_margin: smallest margin that these samples certify with the probability `power`.
        needed: samples that certify the margin with that probability; None if no number would do.
        disagreement: how often base and finalist differ on the search data.
        drop: drop on the search data.
        power: wanted probability of a certificate.
    """

    samples: int
    margin: float
    smallest_margin: float
    needed: int | None
    disagreement: float
    drop: float
    power: float = 0.8

    @property
    def enough(self) -> bool:
        """Whether the samples at hand suffice."""
        return self.needed is not None and self.needed <= self.samples

    def words(self) -> str:
        """Return the outlook in plain English."""
        start = (
            f"With {self.samples:,} certification samples the smallest margin that can be certified is about "
            f"{self.smallest_margin:.2g} (a disagreement of {self.disagreement:.2%} and a drop of {self.drop:.2g} "
            f"on the search data, {self.power:.0%} of cases)."
        )
        if self.enough:
            return f"{start} The margin of {self.margin:.4g} can be tested."
        if self.needed is None:
            return f"{start} No number of samples would show {self.margin:.4g}: the expected drop is not below it."
        return f"{start} For {self.margin:.4g} it takes about {self.needed:,} samples."


def outlook(
    samples: int,
    margin: float,
    q: float,
    *,
    drop: float = 0.0,
    alpha: float = FIRST_ALPHA,
    betting: bool = False,
) -> Outlook:
    """Return what can be expected, from the disagreement and the drop seen on the search data.

    Example:
        >>> print(outlook(2000, 0.01, 0.05, drop=0.003).words())
        With 2,000 certification samples the smallest margin that can be certified is about 0.017 (a disagreement of
        5.00% and a drop of 0.003 on the search data, 80% of cases). For 0.01 it takes about 7,531 samples.
    """
    fraction("drop", max(drop, 0.0))
    reachable = drop < margin
    return Outlook(
        samples=samples,
        margin=margin,
        smallest_margin=smallest_margin(samples, q, drop=drop, alpha=alpha, betting=betting),
        needed=samples_needed(margin, q, drop=drop, alpha=alpha, betting=betting) if reachable else None,
        disagreement=q,
        drop=drop,
    )


def _factor(alpha: float, power: float, betting: bool) -> float:
    if betting:
        return float(ndtri(power) + math.sqrt(ndtri(power) ** 2 + 2 * math.log(1 / alpha))) ** 2
    return float(ndtri(1 - alpha) + ndtri(power)) ** 2


def _check_rates(q: float, alpha: float, power: float) -> None:
    for name, value in (("q", q), ("alpha", alpha), ("power", power)):
        if not 0 <= value <= 1 or (name != "q" and value in (0, 1)):
            raise ArgumentError(f"`{name}` must be a probability, got {value!r}. 5 per cent is 0.05.")
