"""Time on an NVIDIA GPU: CUDA events around replays of a CUDA graph, so that neither Python nor launches count.

It needs torch and numpy alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

import torch

from tersor.errors import MeasurementError
from tersor.measurement.median import Interval, median_interval

Call: TypeAlias = Callable[[], object]

#: Calls before a graph is captured; libraries allocate and choose their kernels in them.
_WARMUP_CALLS = 5
#: Calls between two events; together they should take longer than the resolution of an event, half a microsecond.
_BLOCK_CALLS = 20


def cuda_missing() -> str:
    """Return why nothing can be timed on a GPU here; empty where it can."""
    return "" if torch.cuda.is_available() else "no NVIDIA GPU that torch can use"


def graphed(call: Call) -> Call:
    """Return a replay of what `call` launches; `call` itself where it cannot be captured.

    A graph is fixed: same shapes, same memory, no decision of the host in between.

    Raises:
        MeasurementError: if there is no GPU.
    """
    _insist()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.no_grad():
        for _ in range(_WARMUP_CALLS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph), torch.no_grad():
            call()
    except RuntimeError:
        return call
    return graph.replay


def event_seconds(call: Call) -> float:
    """Return the time of one call by CUDA events around a block of them, seconds.

    Raises:
        MeasurementError: if there is no GPU.
    """
    _insist()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(_BLOCK_CALLS):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / _BLOCK_CALLS


@dataclass(frozen=True, slots=True)
class GpuComparison:
    """How much faster one call is than another on this GPU.

    Attributes:
        speedup: time of the base over time of the candidate, with its 95 per cent interval.
        base_s: median time of the base, seconds.
        candidate_s: median time of the candidate, seconds.
    """

    speedup: Interval
    base_s: float
    candidate_s: float


def compare_on_gpu(base: Call, candidate: Call, *, blocks: int = 30) -> GpuComparison:
    """Compare two calls in turns (ABBA), each block of calls between two events.

    Args:
        base: launches the work of the base; wrap it with `graphed`.
        candidate: likewise.
        blocks: pairs of blocks.

    Raises:
        MeasurementError: if there is no GPU.
    """
    _insist()
    pairs = []
    with torch.no_grad():
        for call in (base, candidate):  # the first block of each waits for what came before
            event_seconds(call)
        for turn in range(blocks):
            if turn % 2:
                after, before = event_seconds(candidate), event_seconds(base)
            else:
                before, after = event_seconds(base), event_seconds(candidate)
            pairs.append((before, after))
    return GpuComparison(
        median_interval([before / after for before, after in pairs]),
        median(before for before, _ in pairs),
        median(after for _, after in pairs),
    )


def _insist() -> None:
    if cuda_missing():
        raise MeasurementError(
            f"Nothing can be timed on a GPU: there is {cuda_missing()}. Measure files instead."
        )
