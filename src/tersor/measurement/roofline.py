"""The roofline of this machine: what it can do at most, measured once."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from tersor.analysis.facts import Facts
from tersor.errors import ArgumentError
from tersor.measurement.result import Measurement

#: Rows, columns and inner size of the products: large enough for the peak, small enough for the second-level cache.
_SIDE = 384
#: Elements of each of three arrays, 192 MB together: above the last-level cache of most processors.
_STREAM = 16 * 1024 * 1024
#: Runs, of which the best counts: a product takes a millisecond, a stream twenty.
_PRODUCTS, _STREAMS = 200, 12


@dataclass(frozen=True, slots=True)
class Roofline:
    """The limits of a machine; work with k multiply-adds a byte runs at no more than min(peak, k * bandwidth).

    Attributes:
        multiply_adds_per_s: single precision, in ONNX Runtime's matrix product.
        int8_multiply_adds_per_s: unsigned by signed 8 bits, in ONNX Runtime's integer matrix product.
        bytes_per_s: memory traffic of c = a + b over arrays larger than the caches.
        threads: threads used.
        cache_bytes: size of the last-level cache; 0 where the system does not tell.

    Source:
        Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009.
    """

    multiply_adds_per_s: float
    int8_multiply_adds_per_s: float
    bytes_per_s: float
    threads: int
    cache_bytes: int = 0

    def seconds(self, multiply_adds: float, bytes_moved: float) -> float:
        """Return the shortest time for this much single-precision work.

        Example:
            >>> Roofline(4e10, 8e10, 1e10, 1).seconds(4e9, 2e9)
            0.2
        """
        return max(multiply_adds / self.multiply_adds_per_s, bytes_moved / self.bytes_per_s)


@dataclass(frozen=True, slots=True)
class Distance:
    """How far from the limits of the machine a model runs; plain numbers for a report.

    Attributes:
        share: shortest possible time over measured time, 1 at the limit. Above 1 the limits were measured on a busier
            machine than the model.
        limit_s: shortest time that a call could take, seconds.
        bound: what sets it, `arithmetic` or `memory`.
        macs_per_s: multiply-adds per second that the model reaches.
        macs_per_byte: multiply-adds for each byte that its operations read and write.
        peak_macs_per_s: highest rate of this machine, in the arithmetic of the model.
        bytes_per_s: highest memory rate of this machine.
    """

    share: float
    limit_s: float
    bound: str
    macs_per_s: float
    macs_per_byte: float
    peak_macs_per_s: float
    bytes_per_s: float


def distance(counted: Facts, measured: Measurement, limits: Roofline, *, integer: bool = False) -> Distance:
    """Return how far from the limits of its machine a model runs.

    The shortest time of a call of b samples is max(b macs / peak, weights / bandwidth). Activations count as held in
    the cache, and so do weights that fit into it: a lower limit must not count what a perfect runtime avoids.

    Args:
        counted: costs of the model that was exported, `facts(model, inputs)`.
        measured: its file, measured.
        limits: `roofline(measured.threads)`.
        integer: whether it computes with 8-bit integers; its weights then take a quarter of the bytes.

    Raises:
        ArgumentError: if the limits are those of another number of threads.

    Example:
        >>> counted = Facts(parameters=1, parameter_bytes=4, macs=1_000_000, bytes=500_000, sites=())
        >>> measured = Measurement(1e-3, 1e-3, 1e-3, 1e3, 0, 0.0, 4, 1, 1, "onnxruntime", 100)
        >>> found = distance(counted, measured, Roofline(4e9, 8e9, 1e10, 1))
        >>> found.share, found.bound, found.macs_per_byte
        (0.25, 'arithmetic', 2.0)

    Source:
        Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009.
    """
    if limits.threads != measured.threads:
        raise ArgumentError(
            f"The model ran on {measured.threads} threads and the limits are those of {limits.threads}. "
            f"Pass `roofline({measured.threads})`."
        )
    peak = limits.int8_multiply_adds_per_s if integer else limits.multiply_adds_per_s
    width = 4 if integer else 1
    weights = counted.parameter_bytes / width
    arithmetic_s = measured.batch * counted.macs / peak
    memory_s = weights / limits.bytes_per_s if weights > limits.cache_bytes else 0.0
    limit_s = max(arithmetic_s, memory_s)
    return Distance(
        share=limit_s / measured.median_s,
        limit_s=limit_s,
        bound="arithmetic" if arithmetic_s >= memory_s else "memory",
        macs_per_s=measured.batch * counted.macs / measured.median_s,
        macs_per_byte=width * counted.macs / max(counted.bytes, 1),
        peak_macs_per_s=peak,
        bytes_per_s=limits.bytes_per_s,
    )


@lru_cache(maxsize=8)
def roofline(threads: int = 1) -> Roofline:
    """Measure the limits of this machine on `threads` threads; takes about a second, once a process."""
    floats = np.random.default_rng(0).standard_normal((_SIDE, _SIDE)).astype(np.float32)
    codes = np.random.default_rng(0).integers(0, 64, (_SIDE, _SIDE))
    product = _product("MatMul", floats, floats, TensorProto.FLOAT, threads)
    integers = _product(
        "MatMulInteger", codes.astype(np.uint8), codes.astype(np.int8), TensorProto.INT32, threads
    )
    rates = (_SIDE**3 / _best(product, _PRODUCTS), _SIDE**3 / _best(integers, _PRODUCTS), _bandwidth(threads))
    return Roofline(*rates, threads, _cache_bytes())


def _cache_bytes() -> int:
    """Return the size of the last-level cache as Linux tells it; 0 elsewhere."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    return max((int(size.read_text().strip().removesuffix("K")) * 1024 for size in sizes), default=0)


def _product(
    operation: str, left: np.ndarray, right: np.ndarray, result: int, threads: int
) -> Callable[[], object]:
    """Return a call of one matrix product in ONNX Runtime, with `right` as a weight."""
    node = helper.make_node(operation, ["x", "w"], ["y"])
    kind = helper.np_dtype_to_tensor_dtype(left.dtype)
    graph = helper.make_graph(
        [node],
        "peak",
        [helper.make_tensor_value_info("x", kind, left.shape)],
        [helper.make_tensor_value_info("y", result, left.shape)],
        [numpy_helper.from_array(right, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": left})


def _bandwidth(threads: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, second, total = (torch.ones(_STREAM) for _ in range(3))
        return 3 * first.nbytes / _best(lambda: torch.add(first, second, out=total), _STREAMS)
    finally:
        torch.set_num_threads(before)


def _best(function: Callable[[], object], repeats: int) -> float:
    """Return the shortest of some runs, seconds: a limit is what is reached undisturbed."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
