"""Integer grids: a QSpec says which codes exist, a step and a zero point place them on the real line."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from tersor.errors import ArgumentError

#: Codes that runtimes can store, by (bits, signed).
_DTYPES = {(8, False): torch.uint8, (8, True): torch.int8, (16, False): torch.uint16, (16, True): torch.int16}


@dataclass(frozen=True, slots=True)
class QSpec:
    """The codes of one tensor of the graph; the single source of truth for training, simulation and file.

    Attributes:
        qmin: smallest code.
        qmax: largest code.
        axis: the axis along which steps differ; None for one step for the whole tensor.
        block: number of neighbours along `axis` that share a step; 0 for one step per index of `axis`.
        symmetric: whether zero is code 0 and the range is centered there.
        dynamic: whether the range is taken from each tensor at run time.
        storage_bits: width of a stored code: 4, 8 or 16.

    Example:
        >>> QSpec(0, 255).signed, QSpec(-64, 64, axis=0, symmetric=True).signed
        (False, True)
    """

    qmin: int
    qmax: int
    axis: int | None = None
    block: int = 0
    symmetric: bool = False
    dynamic: bool = False
    storage_bits: int = 8

    def __post_init__(self) -> None:
        if not self.qmin <= 0 < self.qmax:
            raise ArgumentError(
                f"The codes {self.qmin}..{self.qmax} do not hold 0 and a positive code; zero must be exact, because "
                "convolutions pad with it. Use for example 0..255 or -127..127."
            )
        if self.block and self.axis is None:
            raise ArgumentError("`block` counts neighbours along `axis`; give the axis too.")

    @property
    def signed(self) -> bool:
        """Whether some code is negative."""
        return self.qmin < 0

    @property
    def dtype(self) -> torch.dtype:
        """The torch type that holds the codes; 4-bit codes travel in 8."""
        return _DTYPES[max(self.storage_bits, 8), self.signed]

    def per_tensor(self) -> "QSpec":
        """Return this grid with one step for the whole tensor."""
        return replace(self, axis=None, block=0)


def spread(values: Tensor, like: Tensor, spec: QSpec) -> Tensor:
    """Return per-channel or per-block `values` in a shape that broadcasts against `like`."""
    if spec.axis is None or values.numel() == 1:
        return values
    if spec.block:
        return values.repeat_interleave(spec.block, dim=spec.axis).narrow(spec.axis, 0, like.shape[spec.axis])
    shape = [1] * like.dim()
    shape[spec.axis] = -1
    return values.reshape(shape)


def encode(x: Tensor, step: Tensor, zero: Tensor, spec: QSpec) -> Tensor:
    """Return the codes of `x` as floating-point integers: `clamp(round(x / step) + zero, qmin, qmax)`.

    The division and the rounding to even are those of ONNX QuantizeLinear; a
    multiplication with `1 / step` would differ in ties.

    Args:
        x: values.
        step: distance between neighbouring codes, positive.
        zero: code of 0.0.
        spec: which codes exist.

    Returns:
        Codes, as floats.

    Example:
        >>> encode(torch.tensor([0.5, 1.5, 99.0]), torch.tensor(1.0), torch.tensor(0.0), QSpec(0, 3))
        tensor([0., 2., 3.])

    Source: ONNX operator QuantizeLinear.
    """
    return torch.clamp(torch.round(x / spread(step, x, spec)) + spread(zero, x, spec), spec.qmin, spec.qmax)


def decode(codes: Tensor, step: Tensor, zero: Tensor, spec: QSpec) -> Tensor:
    """Return the values of `codes`: `(codes - zero) * step`.

    Example:
        >>> decode(torch.tensor([0.0, 3.0]), torch.tensor(0.5), torch.tensor(1.0), QSpec(0, 3))
        tensor([-0.5000,  1.0000])

    Source: ONNX operator DequantizeLinear.
    """
    return (codes - spread(zero, codes, spec)) * spread(step, codes, spec)


def place(lo: Tensor, hi: Tensor, spec: QSpec) -> tuple[Tensor, Tensor]:
    """Return the step and zero point of the grid that covers `[lo, hi]` and holds 0.0 exactly.

    Symmetric: `step = max(|lo|, |hi|) / qmax`. Affine: `step = (hi - lo) / (qmax - qmin)`,
    `zero = round(qmin - lo / step)`. The range is widened to hold zero; a range of
    zero width gets the step that keeps its constant.

    Example:
        >>> place(torch.tensor(0.0), torch.tensor(2.55), QSpec(0, 255))
        (tensor(0.0100), tensor(0.))
    """
    lo, hi = lo.clamp(max=0.0), hi.clamp(min=0.0)
    tiny = torch.finfo(torch.float32).tiny * 2**24
    if spec.symmetric:
        reach = torch.maximum(-lo, hi)
        step = torch.where(reach > tiny, reach / spec.qmax, torch.ones_like(reach))
        return step, torch.zeros_like(step)
    width = hi - lo
    step = torch.where(width > tiny, width / (spec.qmax - spec.qmin), torch.ones_like(width))
    zero = torch.round(spec.qmin - lo / step).clamp(spec.qmin, spec.qmax)
    return step, zero


def place_dynamic(x: Tensor, spec: QSpec) -> tuple[Tensor, Tensor]:
    """Return the step and zero point that a kernel takes from `x` itself.

    One step for the tensor: those of DynamicQuantizeLinear. In blocks along `axis`: `step = max |x| / qmax` of each
    block, symmetric, as products with 4- and 8-bit blocks of weights round what they read.

    Source: ONNX operator DynamicQuantizeLinear; ONNX Runtime, MatMulNBits with `accuracy_level` 4.
    """
    if spec.block:
        reach = _blocks(x, spec).abs().amax(-1)
        return torch.where(reach > 0, reach / spec.qmax, torch.ones_like(reach)), torch.zeros_like(reach)
    lo, hi = x.amin().clamp(max=0.0), x.amax().clamp(min=0.0)
    step = (hi - lo) / (spec.qmax - spec.qmin)
    step = torch.where(step > 0, step, torch.ones_like(step))
    return step, torch.round((spec.qmin - lo / step).clamp(spec.qmin, spec.qmax))


def _blocks(x: Tensor, spec: QSpec) -> Tensor:
    """Return `x` with its last axis, along which the blocks lie, as (blocks, block), filled up with zeros."""
    return pad(x, (0, -x.shape[-1] % spec.block)).unflatten(-1, (-1, spec.block))
