"""How close two computations of the same model are, in decibels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tersor.errors import DataError
from tersor.loading.inputs import Inputs, call, main_output, to_numpy
from tersor.quantization.insert import parameter_of, quantizer_calls
from tersor.quantization.model import QuantizedModel

#: What a runtime that sums in another order changes in a value, relative to it: the last bit of float32.
_LAST_BIT = 2.0**-23


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    """Return the signal to quantization noise ratio: `10 log10(sum r^2 / sum (r - o)^2)`, in decibels.

    Example:
        >>> sqnr(np.array([1.0, 2.0]), np.array([1.0, 2.1]))
        26.98...
    """
    r, o = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    noise = float(np.square(r - o).sum())
    return float(10.0 * np.log10(float(np.square(r).sum()) / noise)) if noise > 0 else float("inf")


@torch.no_grad()
def fidelity(
    model: nn.Module, run: Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]], batches: Iterable[Inputs]
) -> float:
    """Return how well a running file reproduces the model it was written from, over all batches.

    Healthy integer kernels give 40 decibels and more where few layers follow each other: they differ from the
    simulation where a value lies halfway between two codes. Saturating kernels give less than 20. In deep networks
    whose rounding is coarse such values are the limit, which `repeatability` gives.

    Args:
        model: the quantized model.
        run: the opened file: arrays in, arrays out, the main output first.
        batches: real inputs; 64 samples or more.

    Returns:
        SQNR of the file's main output against the model's, in decibels.

    Raises:
        DataError: if there is no batch.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> fidelity(model, lambda arrays: [model(torch.from_numpy(arrays[0])).detach().numpy()], [(torch.ones(4, 2),)])
        inf
    """
    simulated: list[Any] = []
    real: list[Any] = []
    for batch in batches:
        simulated.append(main_output(call(model, batch)).cpu().numpy())
        real.append(run(to_numpy(batch))[0])
    return _joined(simulated, real)


@torch.no_grad()
def repeatability(model: QuantizedModel, batches: Iterable[Inputs], *, seed: int = 0) -> float:
    """Return how well a quantized model reproduces itself when the values that it rounds differ in their last bit.

    No runtime adds numbers in the order of the simulation, so that values differ in their last bits. One that lies
    next to the boundary of two codes falls to the other code, which is a whole step away, and moves values of later
    layers across boundaries of theirs: a share of `d / step` of the values moves by `step` where they differ by `d`,
    so that each layer takes the error half of the way, in decibels, to that of rounding itself. A file cannot be
    expected to be closer to the simulation than the simulation is to itself.

    Args:
        model: the quantized model; not changed.
        batches: real inputs; 64 samples or more.
        seed: of the changes. Where a few values are much larger than all others, so that their steps are wide, seeds
            differ by several decibels.

    Returns:
        SQNR of the main output against that of the same model whose values are each multiplied with `1 + 2^-23 n`,
        n standard normal, before they are rounded, in decibels.

    Raises:
        DataError: if there is no batch.

    Example:
        >>> from tersor.quantization.quantize import quantize
        >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> repeatability(quantize(nn.Sequential(nn.Linear(4, 2)), (x,), [(x,)]), [(x,)]) > 30
        True
    """
    once: list[Any] = []
    again: list[Any] = []
    for batch in batches:
        once.append(main_output(call(model, batch)).cpu().numpy())
        with _other_last_bits(model, seed):
            again.append(main_output(call(model, batch)).cpu().numpy())
    return _joined(once, again)


@contextmanager
def _other_last_bits(model: QuantizedModel, seed: int) -> Iterator[None]:
    """Change the last bits of the values that `model` rounds while the block runs."""
    generators: dict[torch.device, torch.Generator] = {}

    def change(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = arguments[0]
        generator = generators.setdefault(x.device, torch.Generator(x.device).manual_seed(seed))
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return (x * (1.0 + _LAST_BIT * noise),)

    calls = quantizer_calls(model.graph_module)
    with ExitStack() as hooks:
        for quantizer in {quantizer for node, quantizer in calls if parameter_of(node) is None}:
            hooks.callback(quantizer.register_forward_pre_hook(change).remove)
        yield


def _joined(reference: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    if not reference:
        raise DataError("Fidelity needs at least one batch of real inputs.")
    return sqnr(np.concatenate(reference), np.concatenate(other))
