"""What calibration remembers of a tensor: its extremes, then a histogram between them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tersor.errors import DataError

BINS = 2048


@dataclass(frozen=True, slots=True)
class Samples:
    """A weighted sample of values per row; a row shares one step.

    Attributes:
        values: shape (rows, n).
        weights: how often each value was seen, same shape.
        lo: exact minimum per row.
        hi: exact maximum per row.
    """

    values: Tensor
    weights: Tensor
    lo: Tensor
    hi: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "Samples":
        """Return the sample that holds each entry of `rows` once."""
        return cls(rows, torch.ones_like(rows), rows.amin(1), rows.amax(1))


class Observer:
    """Looks at the tensors of one edge, first for their extremes, then for their histogram.

    Example:
        >>> observer = Observer("x")
        >>> observer.look(torch.tensor([0.0, 1.0, 4.0])); observer.start_counting()
        >>> observer.look(torch.tensor([0.0, 1.0, 4.0])); sample = observer.samples()
        >>> sample.lo.item(), sample.hi.item(), int(sample.weights.sum())
        (0.0, 4.0, 3)
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lo = torch.tensor(float("inf"))
        self.hi = torch.tensor(float("-inf"))
        self._counts: Tensor | None = None

    def start_counting(self) -> None:
        """Fix the extremes and count from now on.

        Raises:
            DataError: if no finite value was seen.
        """
        if not torch.isfinite(self.hi - self.lo):
            raise DataError(
                f"Calibration gave no finite range for {self.name!r}: [{self.lo:g}, {self.hi:g}]. Look for NaN or "
                "infinity in the calibration data, or leave this site in floating point."
            )
        self._counts = torch.zeros(BINS, dtype=torch.float64)

    def look(self, x: Tensor) -> None:
        """Take one tensor into account."""
        x = x.float()
        if self._counts is None:
            self.lo, self.hi = torch.minimum(self.lo, x.amin().cpu()), torch.maximum(self.hi, x.amax().cpu())
        elif self.hi > self.lo:
            place = (
                ((x.flatten() - self.lo.item()) * (BINS / (self.hi - self.lo).item()))
                .long()
                .clamp(0, BINS - 1)
            )
            self._counts += torch.bincount(place.cpu(), minlength=BINS)

    def samples(self) -> Samples:
        """Return bin centers weighted by their counts."""
        assert self._counts is not None, "start_counting comes first"
        width = (self.hi - self.lo) / BINS
        centers = self.lo + width * (torch.arange(BINS) + 0.5)
        return Samples(centers[None], self._counts.float()[None], self.lo[None], self.hi[None])
