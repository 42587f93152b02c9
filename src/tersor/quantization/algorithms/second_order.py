"""Round a weight column by column, each column repairing the error of those before it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tersor.quantization.algorithms.registry import refinement
from tersor.quantization.capture import operands
from tersor.quantization.grid import QSpec, spread
from tersor.quantization.layers import Layer, parameter, write

ATEN = torch.ops.aten


@refinement("gptq")
@dataclass(frozen=True, slots=True)
class SecondOrder:
    """Minimize `||(W - W_hat) X||^2` greedily with the inverse of `H = X X^T`.

    Column j is rounded to nearest; the columns after it take `-(w_j - w_hat_j) / U_jj * U_j`, where `U` is the upper
    Cholesky factor of `(H + damping mean(diag H) I)^-1`. Layers that a matrix product does not describe (grouped
    convolutions) and layers that end up worse keep rounding to nearest.

    Attributes:
        damping: fraction of the mean diagonal that is added to it.
        block: columns that are updated before the rest of the matrix is.

    Source: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers,
    ICLR 2023, algorithm 1.
    """

    damping: float = 0.01
    block: int = 128

    @torch.no_grad()
    def __call__(self, layer: Layer, root: nn.Module, x: Tensor, y: Tensor) -> bool:
        """Round the layer's weight; return whether its error is less than that of rounding to nearest."""
        del y
        weight = parameter(root, layer.weight)
        assert weight is not None
        gram = gram_of(layer, x, weight)
        if gram is None:
            return False
        step, zero = layer.quantizer.grid()
        spec = layer.quantizer.spec
        steps = spread(step, weight, spec).expand_as(weight).flatten(1)
        zeros = spread(zero, weight, spec).expand_as(weight).flatten(1)
        rounded = self.solve(weight.flatten(1), steps, zeros, spec, gram).reshape(weight.shape)
        nearest = layer.quantizer(weight)
        error = lambda w: ((w - weight).flatten(1).double() @ gram * (w - weight).flatten(1).double()).sum()
        better = bool(error(rounded) < error(nearest))
        write(root, layer.weight, rounded if better else nearest)
        return better

    def solve(self, weight: Tensor, steps: Tensor, zeros: Tensor, spec: QSpec, gram: Tensor) -> Tensor:
        """Return the rounded matrix.

        Args:
            weight: shape (outputs, inputs).
            steps: step of each entry, same shape.
            zeros: zero point of each entry, same shape.
            spec: which codes exist.
            gram: `X X^T`, shape (inputs, inputs), in double precision.

        Returns:
            The weight on its grid.
        """
        upper = _upper_factor(gram, self.damping).to(weight.dtype)
        left, out = weight.clone(), torch.empty_like(weight)
        for start in range(0, weight.shape[1], self.block):
            stop = min(start + self.block, weight.shape[1])
            errors = torch.zeros_like(left[:, start:stop])
            for j in range(start, stop):
                codes = (torch.round(left[:, j] / steps[:, j]) + zeros[:, j]).clamp(spec.qmin, spec.qmax)
                out[:, j] = (codes - zeros[:, j]) * steps[:, j]
                errors[:, j - start] = (left[:, j] - out[:, j]) / upper[j, j]
                left[:, j + 1 : stop] -= errors[:, j - start, None] * upper[j, j + 1 : stop]
            left[:, stop:] -= errors @ upper[start:stop, stop:]
        return out


def _upper_factor(gram: Tensor, damping: float) -> Tensor:
    """Return U with `U^T U = (H + damping I)^-1`; inputs that are always zero get a unit diagonal."""
    diagonal = gram.diagonal()
    mean = diagonal.mean().clamp(min=1e-12)
    damped = gram + torch.diag(damping * mean + torch.where(diagonal > 0, 0.0, mean))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


@torch.no_grad()
def gram_of(layer: Layer, x: Tensor, weight: Tensor) -> Tensor | None:
    """Return `X X^T` over everything that meets a row of the flattened weight; None for grouped convolutions."""
    if layer.node.target is ATEN.linear.default:
        rows = x.reshape(-1, x.shape[-1])
    elif layer.node.target is ATEN.conv2d.default and x.shape[1] == weight.shape[1]:
        rows = _patches(layer.node, x, weight)
    else:
        return None
    gram = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=x.device)
    for chunk in rows.split(8192):
        gram += (chunk.T @ chunk).double()
    return gram


def _patches(node: fx.Node, x: Tensor, weight: Tensor) -> Tensor:
    defaults: tuple[Any, ...] = (None, None, None, [1, 1], [0, 0], [1, 1])
    stride, padding, dilation = (*operands(node), *defaults[len(operands(node)) :])[3:6]
    patches = torch.nn.functional.unfold(
        x, tuple(weight.shape[2:]), dilation=dilation, padding=padding, stride=stride
    )
    return patches.transpose(1, 2).reshape(-1, patches.shape[1])
