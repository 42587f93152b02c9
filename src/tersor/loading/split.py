"""Which sample goes where: by a hash of its content, so that copies of a sample never part.

Each distinct sample has a 64-bit fingerprint. Within each class (or within all, without
classes) the distinct samples are ordered by it; the sample of rank `r` of `n` gets the place
`u = (r / n + offset(class)) mod 1` in [0, 1), and the parts are intervals of it. The order of the
data and repeated samples change nothing; the shares of a large class are exact to one sample;
those of small classes are right on average, because each class starts at its own offset.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt64

from tersor._check import fraction
from tersor.errors import ArgumentError

#: Samples that show a drop of d when as many answers change as d: (1.645 + 0.842)^2 / d, at d = 1%, rounded
#: (95% confidence, 80% power; normal approximation of the paired difference of proportions).
CERTIFICATION_SAMPLES = 620
#: More samples than these only cost time: they show drops of a quarter of a point.
_MOST_CERTIFICATION, _MOST_SEARCH = 20_000, 10_000


@dataclass(frozen=True, slots=True)
class Shares:
    """How one data set is divided; what search and certification leave goes to training.

    Attributes:
        search: fraction that chooses between candidates.
        certification: fraction that is sealed for the certificate.
        calibration: number of training samples that statistics are taken from.
        leave_out_copies: of given splits, leave out of the others what the sealed one holds too, instead of refusing.
    """

    search: float = 0.15
    certification: float = 0.25
    calibration: int = 256
    leave_out_copies: bool = False

    def __post_init__(self) -> None:
        fraction("shares.search", self.search)
        fraction("shares.certification", self.certification)
        if (
            self.search + self.certification > 1
            or min(self.search, self.certification, self.calibration) <= 0
        ):
            raise ArgumentError(
                "Shares of search and certification are above 0 and at most 1 together, and calibration takes at least "
                f"one sample; got {self.search}, {self.certification} and {self.calibration}."
            )

    def of(self, samples: int) -> dict[str, float]:
        """Return the fraction of each part for `samples` in all.

        Small data gives certification up to half, because a certificate needs a number of samples, not a share;
        large data gives the surplus to training.

        Example:
            >>> Shares().of(10_000)
            {'train': 0.6, 'search': 0.15, 'certification': 0.25}
            >>> Shares().of(1_000)["certification"]
            0.5
        """
        needed = min(0.5, CERTIFICATION_SAMPLES / samples)
        certification = min(max(self.certification, needed), _MOST_CERTIFICATION / samples)
        search = min(self.search, 1 - certification, _MOST_SEARCH / samples)
        return {"train": 1 - search - certification, "search": search, "certification": certification}


#: For what neither trains nor certifies: copies of sealed samples do no harm there.
HARMLESS = Shares(leave_out_copies=True)


def assign(
    digests: UInt64[np.ndarray, " n"], labels: Int[np.ndarray, " n"] | None, shares: Mapping[str, float]
) -> Int[np.ndarray, " n"]:
    """Return for each sample the number of its part, in the order of `shares`.

    Args:
        digests: fingerprint of each sample.
        labels: class of each sample, to keep the proportions of classes in each part; None for one class.
        shares: fraction of each part; they sum to 1.

    Returns:
        Part numbers, shape (samples,).

    Example:
        >>> digests = np.arange(10, dtype=np.uint64)
        >>> parts = assign(digests, None, {"train": 0.6, "search": 0.4})
        >>> np.bincount(parts).tolist()
        [6, 4]
    """
    unique, inverse = np.unique(digests, return_inverse=True)
    strata = np.zeros(len(unique), dtype=np.int64)
    if labels is not None:
        # Copies of a sample may carry different labels; the smallest decides, so that they stay together.
        strata[:] = np.iinfo(np.int64).max
        np.minimum.at(strata, inverse, labels)
    names, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    ranks = np.empty(len(unique), dtype=np.int64)
    # A stable sort by stratum keeps the order of the fingerprints inside each.
    ranks[np.argsort(stratum, kind="stable")] = np.arange(len(unique)) - np.repeat(
        np.cumsum(sizes) - sizes, sizes
    )
    offsets = np.array([_offset(int(name)) for name in names])
    places = (ranks / sizes[stratum] + offsets[stratum]) % 1.0
    borders = np.cumsum(list(shares.values()))[:-1]
    return np.searchsorted(borders, places, side="right")[inverse]


def _offset(stratum: int) -> float:
    digest = hashlib.blake2b(str(stratum).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little") / 2**48


def draw(digests: UInt64[np.ndarray, " n"], count: int, seed: int) -> Int[np.ndarray, " k"]:
    """Return the positions, ascending, of `count` samples drawn by a seeded order of their fingerprints."""
    order = np.random.default_rng(seed).permutation(np.argsort(digests, kind="stable"))
    return np.sort(order[:count])
