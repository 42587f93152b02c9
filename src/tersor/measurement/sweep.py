"""One file over a grid of batch sizes, sequence lengths and thread counts."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tersor.errors import ArgumentError
from tersor.exporting.artefact import Artefact
from tersor.loading.inputs import Inputs, flatten, map_tensors
from tersor.measurement.measure import measure
from tersor.measurement.result import Measurement


def sweep(
    artefact: Artefact,
    inputs: Inputs,
    *,
    batches: Sequence[int] = (1, 8, 32),
    lengths: Sequence[int] = (),
    threads: Sequence[int] = (1,),
    seconds: float = 1.0,
) -> tuple[Measurement, ...]:
    """Time a file at every batch size, sequence length and number of threads, each in a process of its own.

    Throughput against latency: larger batches and more threads trade one for the other.

    Args:
        artefact: the file.
        inputs: a real batch, repeated or cut to each size.
        batches: samples per call.
        lengths: tokens per sample: the second axis of every integer input, repeated or cut; none keeps theirs.
        threads: threads the runtime may use.
        seconds: time for each point, seconds.

    Returns:
        One Measurement a point, threads varying slowest and batches fastest.

    Raises:
        MeasurementError: if the file cannot be run.
        ArgumentError: if lengths are given and no input is a batch of token sequences.
    """
    stretched = [(length, with_length(inputs, length)) for length in lengths] or [(None, inputs)]
    return tuple(
        replace(measure(artefact, values, threads=count, seconds=seconds, batch=size), length=length)
        for count in threads
        for length, values in stretched
        for size in batches
    )


def with_length(inputs: Inputs, length: int) -> Inputs:
    """Return `inputs` with every token sequence repeated or cut to `length`.

    Raises:
        ArgumentError: if the length is not positive, or no input is a batch of token sequences.

    Example:
        >>> with_length((torch.tensor([[1, 2, 3]]),), 5)
        (tensor([[1, 2, 3, 1, 2]]),)
    """
    if length < 1:
        raise ArgumentError(f"A sequence has at least one token, got a length of {length}.")
    if not any(_is_sequence(tensor) for tensor in flatten(inputs)):
        raise ArgumentError(
            "No input is a batch of token sequences (integers, two axes), so lengths do not apply."
        )
    return map_tensors(lambda tensor: _stretched(tensor, length) if _is_sequence(tensor) else tensor, inputs)


def _is_sequence(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and not tensor.is_floating_point()


def _stretched(tensor: Tensor, length: int) -> Tensor:
    return torch.cat([tensor] * -(-length // tensor.shape[1]), dim=1)[:, :length].contiguous()
