"""The zero point that leaves a sparse error: outliers pay, the bulk does not."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tersor.quantization.grid import QSpec, place
from tersor.quantization.observer import Samples
from tersor.quantization.ranges.mse import MeanSquaredError
from tersor.quantization.ranges.registry import register


@register("hqq")
@dataclass(frozen=True, slots=True)
class HalfQuadratic:
    """Minimize `||W - W_hat||_p^p` with p < 1 over the zero point by half-quadratic splitting, without data.

    `E <- shrink(W - W_hat)`, `z <- mean(W_q - (W - E) / s)`, with
    `shrink(x) = sign(x) relu(|x| - |x|^(p-1) / beta)` and beta growing. The zero point is rounded at the end,
    as files hold integers; a symmetric grid has none, and takes the range of least squared error.

    Attributes:
        p: exponent of the norm.
        beta: weight of the splitting, times `growth` each time.
        growth: factor of beta.
        rounds: iterations.

    Source: Badri and Shaji, Half-Quadratic Quantization of Large Machine Learning Models, 2023.

    Example:
        >>> rows = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
        >>> lo, hi = HalfQuadratic()(Samples.of(rows), QSpec(0, 15, axis=0))
        >>> lo.shape, bool((lo < hi).all())
        (torch.Size([2]), True)
    """

    p: float = 0.7
    beta: float = 10.0
    growth: float = 1.01
    rounds: int = 20

    def __call__(self, samples: Samples, spec: QSpec) -> tuple[Tensor, Tensor]:
        """Return the range whose grid has the solved zero point."""
        if spec.symmetric:
            return MeanSquaredError()(samples, spec)
        step, zero = (value[:, None] for value in place(samples.lo, samples.hi, spec))
        x, beta = samples.values, self.beta
        share = samples.weights / samples.weights.sum(1, keepdim=True).clamp(min=1e-12)
        for _ in range(self.rounds):
            codes = torch.clamp(torch.round(x / step + zero), spec.qmin, spec.qmax)
            error = self._shrink(x - (codes - zero) * step, beta)
            zero = (share * (codes - (x - error) / step)).sum(1, keepdim=True)
            beta *= self.growth
        zero = torch.round(zero).clamp(spec.qmin, spec.qmax)
        return ((spec.qmin - zero) * step)[:, 0], ((spec.qmax - zero) * step)[:, 0]

    def _shrink(self, x: Tensor, beta: float) -> Tensor:
        size = x.abs()
        return x.sign() * torch.relu(size - size.clamp(min=1e-8) ** (self.p - 1.0) / beta)
