"""How the passes of a training compute: in float32 throughout, or quicker where this machine shows that it is."""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tersor.loading.inputs import Inputs, batch_size, call, device_of, main_output, map_tensors
from tersor.quantization.hardware import BFLOAT16, detect

#: A quicker way has to take at most this part of the time of the plain one, in the better of so many rounds.
_WORTHWHILE, _ROUNDS = 0.87, 2
#: Cosine of its gradients to those in float32, below which a way is not taken: some networks need the digits.
_SAME_DIRECTION = 0.95
#: Samples on which ways are timed.
SAMPLES = 32


@dataclass(frozen=True, slots=True)
class Arithmetic:
    r"""The arithmetic of forward and backward passes. Weights, their updates, losses and statistics stay in float32.

    Matrix products and convolutions take factors that are rounded to bfloat16 (8 significant bits, the range of
    float32) and sum in float32, so that nothing has to be scaled: each factor is off by at most $2^{-9}$ of itself.

    Attributes:
        bfloat16: whether products are of bfloat16.
        channels_last: whether images are laid out with their channels last, as many convolution kernels like them.

    Example:
        >>> Arithmetic(bfloat16=True).output(nn.Linear(2, 2), (torch.ones(1, 2),)).dtype
        torch.float32

    Source:
        Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, 2019. https://arxiv.org/abs/1905.12322
    """

    bfloat16: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        products = "products of bfloat16" if self.bfloat16 else "float32"
        return products + ", channels last" * self.channels_last

    def output(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """Return the main output of `model` for `inputs`, computed in this way, in float32 where it was rounded."""
        if self.channels_last:
            inputs = map_tensors(_channels_last, inputs)
        if not self.bfloat16:
            return main_output(call(model, inputs))
        with torch.autocast(device_of(model).type, torch.bfloat16):
            return main_output(call(model, inputs)).float()


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


#: Float32 throughout.
PLAIN = Arithmetic()


def quickest(model: nn.Module, inputs: Inputs) -> Arithmetic:
    """Return the arithmetic in which a training step of `model` is quickest on this machine, measured in turns.

    Ways that this processor has no instructions for, that the model cannot run in, that gain less than an eighth, or
    whose gradients point elsewhere are left out.

    Args:
        model: as it will be trained; not changed.
        inputs: some samples.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained or any(p.dtype != torch.float32 for p in trained) or batch_size(inputs) < 2:
        return PLAIN
    model, inputs = copy.deepcopy(model), map_tensors(lambda t: t[:SAMPLES], inputs)
    with torch.random.fork_rng():
        wanted = _gradient(model, inputs, PLAIN)
        able = [way for way in _ways(model) if _agrees(model, inputs, way, wanted)]
        model.train()
        times = {way: [_step_s(model, inputs, way)] for way in (PLAIN, *able)}  # the first is a warm-up
        times = {way: [_step_s(model, inputs, way) for _ in range(_ROUNDS)] for way in times}
    best = min(times, key=lambda way: min(times[way]))
    return best if min(times[best]) <= _WORTHWHILE * min(times[PLAIN]) else PLAIN


def _ways(model: nn.Module) -> list[Arithmetic]:
    """Return what may be quicker than float32 for this model on this processor."""
    device = device_of(model).type
    rounded = torch.cuda.is_bf16_supported() if device == "cuda" else bool(detect().features & BFLOAT16)
    images = any(isinstance(module, nn.Conv2d) for module in model.modules())
    return [
        Arithmetic(bfloat16, channels_last)
        for bfloat16 in (False, True)[: 1 + rounded]
        for channels_last in (False, True)[: 1 + images]
        if bfloat16 or channels_last
    ]


def _agrees(model: nn.Module, inputs: Inputs, way: Arithmetic, wanted: Sequence[Tensor]) -> bool:
    try:
        found = _gradient(model, inputs, way)
    except RuntimeError:  # such as a `view` that fits one layout only, or no kernel for bfloat16
        return False
    return _cosine(found, wanted) >= _SAME_DIRECTION


def _gradient(model: nn.Module, inputs: Inputs, way: Arithmetic) -> list[Tensor]:
    """Return the gradient of the mean square of the output, with dropout off; the model keeps none."""
    model.eval()
    way.output(model, inputs).square().mean().backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    return found


def _cosine(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the cosine of two gradients, tensor by tensor: in one piece they may be more than memory holds."""
    dot = sum(float((a * b).sum()) for a, b in zip(found, wanted, strict=True))
    squares = [sum(float(t.square().sum()) for t in gradient) for gradient in (found, wanted)]
    return dot / max(math.sqrt(squares[0] * squares[1]), 1e-30)


def _step_s(model: nn.Module, inputs: Inputs, way: Arithmetic) -> float:
    begun_s = time.perf_counter()
    way.output(model, inputs).square().mean().backward()
    return time.perf_counter() - begun_s
