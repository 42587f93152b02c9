"""The observed range without its rarest ends."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tersor.quantization.grid import QSpec
from tersor.quantization.observer import Samples
from tersor.quantization.ranges.registry import register


@register("percentile")
@dataclass(frozen=True, slots=True)
class Percentile:
    """Cover the central `coverage` of the mass: each end gives up `(1 - coverage) / 2`.

    Attributes:
        coverage: fraction of the values that is not clipped.

    Source: Wu et al., Integer Quantization for Deep Learning Inference, arXiv 2004.09602, section 4.2.

    Example:
        >>> rows = torch.cat([torch.linspace(-1, 1, 9999), torch.tensor([100.0])])[None]
        >>> lo, hi = Percentile(0.999)(Samples.of(rows), QSpec(-127, 127))
        >>> round(hi.item(), 2)
        1.0
    """

    coverage: float = 0.9999

    def __call__(self, samples: Samples, spec: QSpec) -> tuple[Tensor, Tensor]:
        """Return the two weighted quantiles."""
        del spec
        values, order = samples.values.sort(1)
        mass = samples.weights.gather(1, order).double().cumsum(1)
        mass = mass / mass[:, -1:].clamp(min=1.0)
        tail = torch.full_like(mass[:, :1], (1.0 - self.coverage) / 2)
        last = values.shape[1] - 1
        low = torch.searchsorted(mass, tail).clamp(max=last)
        high = torch.searchsorted(mass, 1.0 - tail).clamp(max=last)
        # A clipped end sits on a sample; an end that clips nothing is the exact extreme.
        lo = torch.where(low[:, 0] == 0, samples.lo, values.gather(1, low)[:, 0])
        hi = torch.where(high[:, 0] == last, samples.hi, values.gather(1, high)[:, 0])
        return lo, hi
