"""How close two computations of the same model are, in decibels."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from tersor.errors import DataError
from tersor.loading.inputs import Inputs, call, main_output, to_numpy


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

    Healthy integer kernels give 40 decibels and more: they differ from the simulation where a sum lies halfway
    between two codes. Saturating kernels give less than 20.

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
    if not simulated:
        raise DataError("Fidelity needs at least one batch of real inputs.")
    return sqnr(np.concatenate(simulated), np.concatenate(real))
