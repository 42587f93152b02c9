"""The range with the least squared rounding and clipping error."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tersor.quantization.grid import QSpec, decode, encode, place
from tersor.quantization.observer import Samples
from tersor.quantization.ranges.registry import register


@register("mse")
@dataclass(frozen=True, slots=True)
class MeanSquaredError:
    """Minimize `sum_i w_i (x_i - x_hat_i)^2` over shrunk ranges: both ends together, then each alone.

    Attributes:
        candidates: number of shrink factors tried, evenly from `narrowest` to 1.
        narrowest: smallest fraction of an end that is tried.

    Source: Banner et al., Post-Training 4-bit Quantization of Convolution Networks for Rapid-Deployment,
    NeurIPS 2019; grid search as in Choukroun et al., Low-bit Quantization, ICCVW 2019, section 3.

    Example:
        >>> rows = torch.randn(1, 9999, generator=torch.Generator().manual_seed(0))
        >>> lo, hi = MeanSquaredError()(Samples.of(rows), QSpec(-7, 7, symmetric=True))
        >>> f"{rows.abs().max():.1f} clipped to {max(-lo, hi).item():.1f}"
        '4.3 clipped to 2.5'
    """

    candidates: int = 40
    narrowest: float = 0.2

    def __call__(self, samples: Samples, spec: QSpec) -> tuple[Tensor, Tensor]:
        """Return the range of least error."""
        spec = QSpec(spec.qmin, spec.qmax, axis=0, symmetric=spec.symmetric)
        lo, hi = samples.lo, samples.hi
        lo, hi = self._best(samples, spec, lo, hi, (True, True))
        if not spec.symmetric:
            lo, hi = self._best(samples, spec, lo, hi, (True, False))
            lo, hi = self._best(samples, spec, lo, hi, (False, True))
        return lo, hi

    def _best(
        self, samples: Samples, spec: QSpec, lo: Tensor, hi: Tensor, moves: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        best_lo, best_hi, least = lo, hi, torch.full_like(lo, float("inf"))
        for factor in torch.linspace(1.0, self.narrowest, self.candidates).tolist():
            new_lo = lo * factor if moves[0] else lo
            new_hi = hi * factor if moves[1] else hi
            error = squared_error(samples, spec, new_lo, new_hi)
            better = error < least
            best_lo, best_hi = torch.where(better, new_lo, best_lo), torch.where(better, new_hi, best_hi)
            least = torch.where(better, error, least)
        return best_lo, best_hi


def squared_error(samples: Samples, spec: QSpec, lo: Tensor, hi: Tensor) -> Tensor:
    """Return the weighted squared error of each row on the grid that covers `[lo, hi]`."""
    step, zero = place(lo, hi, spec)
    error = decode(encode(samples.values, step, zero, spec), step, zero, spec) - samples.values
    return (samples.weights * error.square()).sum(1)
