"""One file over a grid of batch sizes and thread counts."""

from collections.abc import Sequence

from tersor.exporting.artefact import Artefact
from tersor.loading.inputs import Inputs
from tersor.measurement.measure import measure
from tersor.measurement.result import Measurement


def sweep(
    artefact: Artefact,
    inputs: Inputs,
    *,
    batches: Sequence[int] = (1, 8, 32),
    threads: Sequence[int] = (1,),
    seconds: float = 1.0,
) -> tuple[Measurement, ...]:
    """Time a file at every batch size and number of threads, each in a process of its own.

    Throughput against latency: larger batches and more threads trade one for the other.

    Args:
        artefact: the file.
        inputs: a real batch, repeated or cut to each size.
        batches: samples per call.
        threads: threads the runtime may use.
        seconds: time for each point, seconds.

    Returns:
        One Measurement a point, threads varying slowest.

    Raises:
        MeasurementError: if the file cannot be run.
    """
    return tuple(
        measure(artefact, inputs, threads=count, seconds=seconds, batch=size)
        for count in threads
        for size in batches
    )
