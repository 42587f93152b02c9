"""The roofline of this machine: what it can do at most, measured once."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

#: Rows, columns and inner size of the products: large enough for the peak, small enough for the second-level cache.
_SIDE = 768
#: Elements of each of three arrays, 192 MB together: above the last-level cache of most processors.
_STREAM = 16 * 1024 * 1024
_REPEATS = 12


@dataclass(frozen=True, slots=True)
class Roofline:
    """The limits of a machine; work with k multiply-adds a byte runs at no more than min(peak, k * bandwidth).

    Attributes:
        multiply_adds_per_s: single precision, in ONNX Runtime's matrix product.
        int8_multiply_adds_per_s: unsigned by signed 8 bits, in ONNX Runtime's integer matrix product.
        bytes_per_s: memory traffic of c = a + b over arrays larger than the caches.
        threads: threads used.

    Source:
        Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009.
    """

    multiply_adds_per_s: float
    int8_multiply_adds_per_s: float
    bytes_per_s: float
    threads: int

    def seconds(self, multiply_adds: float, bytes_moved: float) -> float:
        """Return the shortest time for this much single-precision work.

        Example:
            >>> Roofline(4e10, 8e10, 1e10, 1).seconds(4e9, 2e9)
            0.2
        """
        return max(multiply_adds / self.multiply_adds_per_s, bytes_moved / self.bytes_per_s)


@lru_cache(maxsize=8)
def roofline(threads: int = 1) -> Roofline:
    """Measure the limits of this machine on `threads` threads; takes about a second, once a process."""
    floats = np.random.default_rng(0).standard_normal((_SIDE, _SIDE)).astype(np.float32)
    codes = np.random.default_rng(0).integers(0, 64, (_SIDE, _SIDE))
    product = _product("MatMul", floats, floats, TensorProto.FLOAT, threads)
    integers = _product(
        "MatMulInteger", codes.astype(np.uint8), codes.astype(np.int8), TensorProto.INT32, threads
    )
    return Roofline(_SIDE**3 / _best(product), _SIDE**3 / _best(integers), _bandwidth(threads), threads)


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
        return 3 * first.nbytes / _best(lambda: torch.add(first, second, out=total))
    finally:
        torch.set_num_threads(before)


def _best(function: Callable[[], object]) -> float:
    """Return the shortest of some runs, seconds: a limit is what is reached undisturbed."""
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
