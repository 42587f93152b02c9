"""The range whose quantized histogram keeps the most information."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tersor.quantization.grid import QSpec
from tersor.quantization.observer import Samples
from tersor.quantization.ranges.registry import register


@register("entropy")
@dataclass(frozen=True, slots=True)
class Entropy:
    """Minimize the Kullback-Leibler divergence from the clipped histogram to its quantized version.

    `P`: the histogram of |x| with the clipped mass added to its last bin; `Q`: the same bins averaged over each of
    the grid's levels, over the bins that are not empty. The threshold of least `sum P log(P / Q)` wins.

    Attributes:
        bins: bins of |x|.
        candidates: number of thresholds tried.

    Source: Migacz, 8-bit Inference with TensorRT, GTC 2017.

    Example:
        >>> lo, hi = Entropy()(Samples.of(torch.randn(1, 20000)), QSpec(-127, 127, symmetric=True))
        >>> bool(hi > 1.0)
        True
    """

    bins: int = 2048
    candidates: int = 64

    def __call__(self, samples: Samples, spec: QSpec) -> tuple[Tensor, Tensor]:
        """Return the range of least divergence, row by row."""
        reach = torch.maximum(samples.lo.abs(), samples.hi.abs())
        kept = [
            self._row(v, w, r.item(), spec)
            for v, w, r in zip(samples.values, samples.weights, reach, strict=True)
        ]
        threshold = torch.tensor(kept, dtype=reach.dtype, device=reach.device)
        return torch.maximum(samples.lo, -threshold), torch.minimum(samples.hi, threshold)

    def _row(self, values: Tensor, weights: Tensor, reach: float, spec: QSpec) -> float:
        if reach <= 0.0:
            return reach
        place = (values.abs() * (self.bins / reach)).long().clamp(max=self.bins - 1)
        histogram = torch.zeros(self.bins, dtype=torch.float64, device=values.device)
        histogram.index_add_(0, place, weights.double())
        levels = max(spec.qmax if spec.signed else (spec.qmax - spec.qmin) // 2, 2)
        widths = torch.linspace(min(levels, self.bins), self.bins, self.candidates).long().unique().tolist()
        divergences = [_divergence(histogram, width, levels) for width in widths]
        best = min(range(len(widths)), key=lambda i: divergences[i])
        return reach * widths[best] / self.bins


def _divergence(histogram: Tensor, width: int, levels: int) -> float:
    kept = histogram[:width].clone()
    if not kept.sum():
        return float("inf")
    clipped = kept.clone()
    clipped[-1] += histogram[width:].sum()
    level = torch.arange(width, device=kept.device) * levels // width
    filled = (kept > 0).double()
    mass = torch.zeros(levels, dtype=torch.float64, device=kept.device).index_add_(0, level, kept)
    count = torch.zeros_like(mass).index_add_(0, level, filled)
    quantized = filled * (mass / count.clamp(min=1.0))[level]
    p, q = clipped / clipped.sum(), quantized / quantized.sum()
    if bool(((p > 0) & (q == 0)).any()):
        return float("inf")
    there = p > 0
    return float((p[there] * (p[there] / q[there]).log()).sum())
