"""Take the mean error out of a layer's output."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tersor.quantization.algorithms.registry import refinement
from tersor.quantization.capture import get_tensor
from tersor.quantization.layers import Layer, parameter, write


@refinement("bias")
@dataclass(frozen=True, slots=True)
class BiasCorrection:
    """Shift each bias by the mean of what rounding did to its layer: `b' = b - E[f_hat(x_hat) - f(x)]`.

    The expectation runs over samples and positions, channel by channel; a layer sees the corrections before it.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
    section 4.2, with the expectation measured.
    """

    @torch.no_grad()
    def __call__(self, layer: Layer, root: nn.Module, x: Tensor, y: Tensor) -> bool:
        """Shift the layer's bias; return whether it has one."""
        bias = parameter(root, layer.bias)
        if bias is None or layer.bias is None:
            return False
        have = layer.run(x, layer.quantizer(get_tensor(root, layer.weight)), bias)
        channel = have.dim() - 1 if layer.node.target is torch.ops.aten.linear.default else 1
        write(root, layer.bias, bias - (have - y).movedim(channel, 0).flatten(1).mean(1))
        return True
