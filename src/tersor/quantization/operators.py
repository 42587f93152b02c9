"""The integer operators of a lowered graph, as torch operators that an exporter can translate one by one.

`torch.ops.tersor.quantize` and `dequantize` are ONNX's QuantizeLinear and DequantizeLinear; their codes are real
integers, where the training graph holds floats on a grid.
"""

from typing import Any

import torch
from torch import Tensor

from tersor.quantization.grid import QSpec, decode, encode, place_dynamic


def _spec(low: int, high: int, axis: int, block: int) -> QSpec:
    return QSpec(low, high, axis=None if axis < 0 else axis, block=block)


@torch.library.custom_op("tersor::quantize", mutates_args=())
def quantize_codes(x: Tensor, step: Tensor, zero: Tensor, qmin: int, qmax: int) -> Tensor:
    """Return the codes of `x` in the type of `zero`."""
    return encode(x, step, zero.to(x.dtype), QSpec(qmin, qmax)).to(zero.dtype)


@quantize_codes.register_fake
def _(x: Tensor, _step: Tensor, zero: Tensor, _qmin: int, _qmax: int) -> Tensor:
    return torch.empty_like(x, dtype=zero.dtype)


@torch.library.custom_op("tersor::dequantize", mutates_args=())
def dequantize_codes(codes: Tensor, step: Tensor, zero: Tensor, axis: int, block: int, bits: int) -> Tensor:
    """Return the values of `codes`; `axis` is -1 for one step, `block` counts the codes that share one.

    A file stores the codes in `bits` bits.
    """
    del bits
    return decode(codes.to(step.dtype), step, zero.to(step.dtype), _spec(0, 1, axis, block))


@dequantize_codes.register_fake
def _(codes: Tensor, step: Tensor, _zero: Tensor, _axis: int, _block: int, _bits: int) -> Tensor:
    return torch.empty_like(codes, dtype=step.dtype)


@torch.library.custom_op("tersor::global_average_pool", mutates_args=())
def global_average_pool(x: Tensor) -> Tensor:
    """Return the mean over the spatial axes, which stay with length 1."""
    return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)


@global_average_pool.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:2], *([1] * (x.dim() - 2))))


def _keep_shape(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    del output
    ctx.shape = inputs[0].shape


def _spread_evenly(ctx: Any, grad: Tensor) -> Tensor:
    return grad.expand(ctx.shape) / (ctx.shape.numel() // grad.numel())


global_average_pool.register_autograd(_spread_evenly, setup_context=_keep_shape)


@torch.library.custom_op("tersor::dynamic_matmul", mutates_args=())
def dynamic_matmul(x: Tensor, codes: Tensor, step: Tensor, zero: Tensor) -> Tensor:
    """Return `x @ weight` with `x` quantized on the range of this very tensor; `codes` is (inputs, outputs)."""
    spec = QSpec(0, 255, dynamic=True)
    x_step, x_zero = place_dynamic(x, spec)
    x_hat = decode(encode(x, x_step, x_zero, spec), x_step, x_zero, spec)
    return x_hat @ decode(codes.to(x.dtype), step, zero.to(x.dtype), _spec(0, 1, 1, 0))


@dynamic_matmul.register_fake
def _(x: Tensor, codes: Tensor, _step: Tensor, _zero: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], codes.shape[1]))


#: The operators above, as nodes of a graph name them: `OPS.quantize.default`, ...
OPS = torch.ops.tersor
