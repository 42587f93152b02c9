"""Ask the kernels themselves whether they saturate: one adversarial layer, real kernels against plain arithmetic."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tersor._check import one_of

#: Relative error of the mean output above which a kernel has lost sums.
LOST = 0.02


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one kernel does at the top of its range.

    Attributes:
        kernel: `conv` or `matmul`.
        reach: largest weight code.
        signed: whether activations are signed.
        expected: mean output in plain arithmetic.
        found: mean output of the kernel.
    """

    kernel: str
    reach: int
    signed: bool
    expected: float
    found: float

    @property
    def saturates(self) -> bool:
        """Whether sums were cut."""
        return abs(self.found / self.expected - 1.0) > LOST


def probe(kernel: str = "conv", *, reach: int = 127, signed: bool = False) -> Verdict:
    """Run one layer with all activations at their largest code and weights in `[reach - 3, reach]`.

    ONNX Runtime runs it with its integer kernels and, for comparison, without any optimization. A kernel that adds
    pairs of products in 16 bits gives about half of what it should at reach 127.

    Args:
        kernel: `conv` or `matmul`.
        reach: largest weight code.
        signed: whether activations are signed.

    Returns:
        The verdict for this processor and this version of ONNX Runtime.

    Example:
        >>> probe("conv", reach=64).saturates
        False

    Source: Intel, oneDNN documentation, "Nuances of int8 computations".
    """
    model = _layer(one_of("kernel", kernel, ("conv", "matmul")), reach, signed)
    x = np.full((1, 64, 8, 8) if kernel == "conv" else (1, 8, 64), 127 / 255 if signed else 1.0, np.float32)
    return Verdict(kernel, reach, signed, _mean(model, x, optimize=False), _mean(model, x, optimize=True))


def _mean(model: bytes, x: np.ndarray, *, optimize: bool) -> float:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session: Any = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": x})[0].mean())


def _layer(kernel: str, reach: int, signed: bool) -> bytes:
    from onnx import TensorProto, numpy_helper
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

    inputs, outputs = 64, 32
    shape = (outputs, inputs, 1, 1) if kernel == "conv" else (inputs, outputs)
    weight = np.random.default_rng(0).integers(reach - 3, reach + 1, shape).astype(np.int8)
    zero = np.int8(0) if signed else np.uint8(0)
    constants = {
        "x_step": np.float32(1 / 255), "x_zero": zero, "w": weight, "w_step": np.full(outputs, 1 / 127, np.float32),
        "w_zero": np.zeros(outputs, np.int8), "y_step": np.float32(inputs / 255), "y_zero": zero,
    }  # fmt: skip
    nodes = [
        make_node("QuantizeLinear", ["x", "x_step", "x_zero"], ["x_q"]),
        make_node("DequantizeLinear", ["x_q", "x_step", "x_zero"], ["x_d"]),
        make_node("DequantizeLinear", ["w", "w_step", "w_zero"], ["w_d"], axis=0 if kernel == "conv" else 1),
        make_node("Conv" if kernel == "conv" else "MatMul", ["x_d", "w_d"], ["y_f"]),
        make_node("QuantizeLinear", ["y_f", "y_step", "y_zero"], ["y_q"]),
        make_node("DequantizeLinear", ["y_q", "y_step", "y_zero"], ["y"]),
    ]
    space = (8, 8) if kernel == "conv" else ()
    ends = [
        make_tensor_value_info(name, TensorProto.FLOAT, (1, width, *space) if space else (1, 8, width))
        for name, width in (("x", inputs), ("y", outputs))
    ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = make_graph(nodes, "probe", ends[:1], ends[1:], stored)
    return make_model(graph, opset_imports=[make_opsetid("", 21)], ir_version=10).SerializeToString()
