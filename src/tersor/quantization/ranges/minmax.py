"""The whole observed range."""

from dataclasses import dataclass

from torch import Tensor

from tersor.quantization.grid import QSpec
from tersor.quantization.observer import Samples
from tersor.quantization.ranges.registry import register


@register("minmax")
@dataclass(frozen=True, slots=True)
class MinMax:
    """Cover everything seen: `lo = min x`, `hi = max x`. Nothing is clipped; outliers cost resolution.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference, CVPR 2018, section 3.1.

    Example:
        >>> import torch
        >>> MinMax()(Samples.of(torch.tensor([[-1.0, 3.0]])), QSpec(0, 255))
        (tensor([-1.]), tensor([3.]))
    """

    def __call__(self, samples: Samples, spec: QSpec) -> tuple[Tensor, Tensor]:
        """Return the extremes."""
        del spec
        return samples.lo, samples.hi
