"""The simulated integer tensor: one forward pass for calibration, training, evaluation and export."""

from typing import Any

import torch
from torch import Tensor, nn

from tersor.quantization.grid import QSpec, decode, encode, place_dynamic, spread
from tersor.quantization.observer import Observer


class _LearnedStep(torch.autograd.Function):
    """Quantize and dequantize; the backward pass is straight-through for x and LSQ's for the step.

    `d x_hat / d step = round(v) - v` inside the range, `qmin - zero` below, `qmax - zero` above, with
    `v = x / step`; the step's gradient is multiplied with `1 / sqrt(elements per step * qmax)`.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: Tensor, spec: QSpec) -> Tensor:
        ctx.save_for_backward(x, step, zero)
        ctx.spec = spec
        return decode(encode(x, step, zero, spec), step, zero, spec)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, step, zero = ctx.saved_tensors
        grad, spec = grads[0], ctx.spec
        scaled, origin = x / spread(step, x, spec), spread(zero, x, spec)
        low, high = spec.qmin - origin, spec.qmax - origin
        rounded = torch.round(scaled)
        inside = (rounded >= low) & (rounded <= high)
        for_x = torch.where(inside, grad, torch.zeros_like(grad))
        if not ctx.needs_input_grad[1]:
            return for_x, None, None, None
        slope = torch.where(inside, rounded - scaled, torch.where(rounded < low, low, high).to(x.dtype))
        total = _sum_to(grad * slope, step, spec)
        return for_x, total / (x.numel() / step.numel() * spec.qmax) ** 0.5, None, None


def _sum_to(values: Tensor, step: Tensor, spec: QSpec) -> Tensor:
    """Sum `values` over the elements that share a step."""
    if spec.axis is None or step.numel() == 1:
        return values.sum().reshape(step.shape)
    if spec.block:
        moved = values.movedim(spec.axis, -1)
        padding = -moved.shape[-1] % spec.block
        blocks = nn.functional.pad(moved, (0, padding)).unflatten(-1, (-1, spec.block))
        return blocks.sum(-1).movedim(-1, spec.axis)
    return values.movedim(spec.axis, 0).flatten(1).sum(1)


class FakeQuantize(nn.Module):
    """Round a tensor to its integer grid, as the runtime does, bit for bit.

    While `observer` is set the tensor passes unchanged and is only looked at; while `enabled` is false it passes.

    Attributes:
        spec: the codes.
        step: learned distance between codes, one per tensor, channel or block.
        zero: code of 0.0.
        smallest: least step that the runtime's int32 bias allows.
        observer: what looks at tensors during calibration, else None.
        enabled: whether tensors are rounded; only the measurement of sensitivity turns this off.

    Source: Esser et al., Learned Step Size Quantization, ICLR 2020, section 2.1.
    """

    smallest: Tensor
    zero: Tensor

    def __init__(self, spec: QSpec) -> None:
        super().__init__()
        self.spec = spec
        self.step = nn.Parameter(torch.ones(()), requires_grad=not spec.dynamic)
        self.register_buffer("zero", torch.zeros(()))
        self.register_buffer("smallest", torch.full((), torch.finfo(torch.float32).tiny))
        self.observer: Observer | None = None
        self.enabled = True

    def grid(self) -> tuple[Tensor, Tensor]:
        """Return the step and zero point that every use of this module rounds to."""
        return torch.maximum(self.step.abs(), self.smallest), self.zero

    def set_grid(self, step: Tensor, zero: Tensor) -> None:
        """Place the codes."""
        self.step = nn.Parameter(step.detach().clone(), requires_grad=self.step.requires_grad)
        self.zero = zero.detach().clone()

    def codes(self, x: Tensor) -> Tensor:
        """Return the integer codes of `x`, as floats."""
        return encode(x, *self.grid(), self.spec)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` on its grid."""
        if self.observer is not None:
            self.observer.look(x.detach())
            return x
        if not self.enabled:
            return x
        step, zero = place_dynamic(x.detach(), self.spec) if self.spec.dynamic else self.grid()
        return _LearnedStep.apply(x, step, zero, self.spec)

    def extra_repr(self) -> str:
        """Show the codes."""
        return str(self.spec)


class StraightThrough(torch.autograd.Function):
    """Give `rounded` forward, and its gradient to `x` backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor) -> Tensor:
        """Return `rounded`."""
        del ctx, x
        return rounded

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the result as that of `x`."""
        del ctx
        return grads[0], None


class FakeQuantizeBias(nn.Module):
    """Round a bias to the grid of its layer's 32-bit sums: `step = step of the inputs * step of the weights`.

    While the input's range is being observed the bias passes unchanged.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference, CVPR 2018, section 2.2.
    """

    #: Codes use half of the 32 bits, so that adding the products cannot overflow.
    limit = 2**30

    def __init__(self, inputs: FakeQuantize, weights: FakeQuantize) -> None:
        super().__init__()
        # A tuple, so that the two are not counted, saved and moved once more as submodules of this one.
        self._grids = (inputs, weights)

    @property
    def inputs(self) -> FakeQuantize:
        """The quantizer of the layer's input."""
        return self._grids[0]

    @property
    def weights(self) -> FakeQuantize:
        """The quantizer of the layer's weight."""
        return self._grids[1]

    def step(self) -> Tensor:
        """Return the value of one unit of the sums, per output channel."""
        return (self.inputs.grid()[0] * self.weights.grid()[0]).detach()

    @torch.no_grad()
    def widen(self, bias: Tensor) -> None:
        """Keep the weights' steps large enough for the codes of `bias` to fit."""
        least = bias.detach().abs() / (self.inputs.grid()[0] * self.limit)
        self.weights.smallest = (
            torch.maximum(self.weights.smallest, least).expand_as(self.weights.step).clone()
        )

    def codes(self, bias: Tensor) -> Tensor:
        """Return the integer codes of `bias`, in double precision, which holds them exactly."""
        return torch.round(bias.double() / self.step().double()).clamp(-self.limit, self.limit)

    def forward(self, bias: Tensor) -> Tensor:
        """Return `bias` on its grid."""
        if self.inputs.observer is not None or not self.inputs.enabled:
            return bias
        return StraightThrough.apply(bias, self.codes(bias).to(bias.dtype) * self.step())
