"""Round an ONNX graph that stays a graph, by ONNX Runtime's own quantizers."""

import io
import logging
import math
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from tersor._check import one_of
from tersor.errors import ArgumentError, ModelError
from tersor.loading.inputs import Inputs, call, flatten, main_output
from tersor.loading.onnx.graph_model import GraphModel
from tersor.loading.references import first_line
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.hardware import KINDS, Processor, detect

#: Runtime -> the kinds of integers that it has kernels for in an ONNX file.
_KERNELS = {"onnxruntime": KINDS, "openvino": ("static", "int8", "int4")}
#: How ranges of activations are taken: the extremes, or all but one value in ten thousand on either side.
RANGES = ("minmax", "percentile")
#: Histograms hold every activation in memory, so that fewer samples are looked at.
_HISTOGRAM_BATCHES = 2
_LINEAR = ("MatMul", "Gemm", "FusedMatMul")
#: Neighbours in a row of a weight that share a step, where weights alone are rounded; see `weight_only`.
_BLOCK = 32
#: What ONNX Runtime appends to the name of a node that it rewrites.
_APPENDED = re.compile(r"(/MatMulAddFusion|_MatMul|_quant|_Q[248])+$")


@dataclass(frozen=True, slots=True)
class Rounding:
    """How a graph is rounded.

    Attributes:
        scheme: `static`, `dynamic`, or `int8` and `int4` for weights alone.
        ranges: how ranges of activations are taken, of `RANGES`; for `static`.
        leave: names of nodes that stay in floating point.
    """

    scheme: str
    ranges: str = "minmax"
    leave: Collection[str] = field(default=())


def graph_schemes(model: GraphModel, runtime: str = "onnxruntime") -> tuple[str, ...]:
    """Return the kinds of integers worth timing for a graph, most promising first.

    None if it is quantized already, or has no layer. As in `schemes`: static ranges come first where most layers are
    convolutions, and alone where linear layers hold less than half of the weights too.
    """
    linear = [math.prod(shape) for kind, shape in model.layers.values() if kind in _LINEAR]
    convolutions = [math.prod(shape) for kind, shape in model.layers.values() if kind == "Conv"]
    if model.quantized or not (convolutions or linear):
        return ()
    mostly_linear = len(linear) >= len(convolutions)
    order = ("static",)
    if mostly_linear or sum(linear) >= sum(convolutions):
        order = (*(("dynamic", "static") if mostly_linear else ("static", "dynamic")), "int8", "int4")
    return tuple(kind for kind in order if kind in _KERNELS[one_of("runtime", runtime, _KERNELS)])


def quantize_graph(model: GraphModel, calibration: Sequence[Inputs], how: Rounding) -> GraphModel:
    """Return `model` in integers, as ONNX Runtime's quantizer writes it.

    Static: QuantizeLinear and DequantizeLinear around every layer, weights per output channel, on the codes that the
    processor multiplies exactly. Dynamic: DynamicQuantizeLinear and MatMulInteger. Weights alone: MatMulNBits, blocks
    of 32 with a step each, inputs rounded inside the kernel.

    Args:
        model: a graph in floating point; not changed.
        calibration: batches of inputs; for static ranges.
        how: which integers.

    Raises:
        ArgumentError: if it is quantized already, or has no layer for such integers.
        ModelError: if the quantizer does not take the graph.

    Source:
        https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    one_of("scheme", how.scheme, KINDS)
    one_of("ranges", how.ranges, RANGES)
    if model.quantized:
        raise ArgumentError(
            "The ONNX graph is quantized already, and is not rounded twice. Pass the floating-point model that it was "
            "made from."
        )
    with tempfile.TemporaryDirectory(prefix="tersor-graph-") as folder, _quiet():
        try:
            made = _METHODS[how.scheme](model, calibration, how, Path(folder))
        except ModelError:
            raise
        except Exception as cause:  # the quantizers raise errors of many kinds
            raise ModelError(
                f"ONNX Runtime's quantizer does not take the graph: {first_line(cause)}"
            ) from cause
    rounded = _as(model, made)
    if not rounded.integers:
        raise ArgumentError(f"The ONNX graph has no layer for {how.scheme!r} integers.")
    return rounded


def quantize_best(model: GraphModel, calibration: Sequence[Inputs], how: Rounding) -> GraphModel:
    """Return `model` in integers with the ranges that change its main output least on calibration data."""
    choices = RANGES if how.scheme == "static" else RANGES[:1]
    made = [quantize_graph(model, calibration, Rounding(how.scheme, ranges, how.leave)) for ranges in choices]
    return min(made, key=lambda one: _error(model, one, calibration))


def quantize_as_asked(
    model: GraphModel, calibration: Sequence[Inputs], scheme: object, plan: Plan | None, recipe: object
) -> GraphModel:
    """Return `model` in integers, in the words of `quantize`; a plan names nodes.

    Raises:
        ArgumentError: if it is asked for a `Scheme` or `Recipe` of its own, which the runtime does not take.
    """
    kinds = graph_schemes(model) or KINDS
    if not isinstance(scheme, str) or not isinstance(recipe, str):
        raise ArgumentError(
            f"An ONNX graph is rounded by ONNX Runtime: `scheme` is one of auto, {', '.join(KINDS)}, and `recipe` is "
            "'quick' or 'auto'."
        )
    kept = () if plan is None else set(model.layers) - {edit.site for edit in plan.of(Quantize)}
    how = Rounding(kinds[0] if scheme == "auto" else scheme, leave=kept)
    make = quantize_graph if one_of("recipe", recipe, ("quick", "auto")) == "quick" else quantize_best
    return make(model, calibration, how)


def site_of(node: str) -> str:
    """Return the name that a node of a rounded graph had before.

    Example:
        >>> site_of("/fc/MatMul_quant"), site_of("/fc/MatMul/MatMulAddFusion"), site_of("conv1")
        ('/fc/MatMul', '/fc/MatMul', 'conv1')
    """
    return _APPENDED.sub("", node)


def optimize_graph(model: GraphModel) -> GraphModel:
    """Return `model` with its constants folded and its nodes fused ahead of time, as ONNX Runtime does on opening.

    Raises:
        ModelError: if the runtime does not take it.
    """
    with tempfile.TemporaryDirectory(prefix="tersor-graph-") as folder, _quiet():
        made = _fused(model.proto(), Path(folder) / "fused.onnx", "ORT_ENABLE_EXTENDED")
    return _as(model, made)


def halve_graph(model: GraphModel) -> GraphModel:
    """Return `model` with weights and arithmetic in float16, where inputs and outputs keep their types.

    Raises:
        ModelError: if the graph cannot be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quiet():
        try:
            made = convert_float_to_float16(model.proto(), keep_io_types=True)
            _sort(made)
        except Exception as cause:  # likewise
            raise ModelError(f"The graph cannot be converted to float16: {first_line(cause)}") from cause
    return _as(model, made)


def _as(model: GraphModel, made: onnx.ModelProto) -> GraphModel:
    """Return `made` as a graph, if it is a valid one: other runtimes are stricter than the one that wrote it."""
    try:
        onnx.checker.check_model(made)
    except Exception as cause:  # the checker's own classes
        raise ModelError(
            f"ONNX Runtime's tools wrote a graph that is not valid: {first_line(cause)}"
        ) from cause
    return type(model)(made, model.why)


def _sort(proto: onnx.ModelProto) -> None:
    """Bring the nodes into an order of execution, which the conversion to float16 does not keep."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(proto).topological_sort()


def _fused(proto: onnx.ModelProto, path: Path, level: str) -> onnx.ModelProto:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    try:
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # the runtime has many classes of errors
        raise ModelError(f"ONNX Runtime does not optimize the graph: {first_line(cause)}") from cause
    return onnx.load(path)


class _Reader:
    """Hands calibration batches to ONNX Runtime."""

    def __init__(self, model: GraphModel, batches: Sequence[Inputs]) -> None:
        names = [entry.name for entry in model.proto().graph.input][: len(model.ports)]
        self.left: Iterator[dict[str, np.ndarray]] = iter(
            {n: port.array(t) for n, port, t in zip(names, model.ports, _ordered(model, batch), strict=True)}
            for batch in batches
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch by input, or None."""
        return next(self.left, None)


def _ordered(model: GraphModel, inputs: Inputs) -> Sequence[Any]:
    return [inputs[port.name] for port in model.ports] if isinstance(inputs, dict) else flatten(inputs)


def _static(model: GraphModel, calibration: Sequence[Inputs], how: Rounding, folder: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    prepared = _prepared(_plain_products(model.proto()), folder)
    signed = detect().architecture == "arm"
    histogram = how.ranges == "percentile"
    kinds = [kind for kind, _ in model.layers.values()]
    layers = sum(kind in _LINEAR for kind in kinds) >= kinds.count("Conv")
    quantize_static(
        prepared,
        folder / "static.onnx",
        _Reader(model, calibration[:_HISTOGRAM_BATCHES] if histogram else calibration),  # pyright: ignore[reportArgumentType]  # has what is called
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"] if layers else None,
        per_channel=True,
        reduce_range=_reduces(detect()),
        activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_excluded(prepared, how.leave),
        calibrate_method=CalibrationMethod.Percentile if histogram else CalibrationMethod.MinMax,
        extra_options={"CalibPercentile": 99.99} if histogram else {},
    )
    return onnx.load(folder / "static.onnx")


def _dynamic(model: GraphModel, _: Sequence[Inputs], how: Rounding, folder: Path) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = _without_gemm(_plain_products(model.proto()))
    quantize_dynamic(
        plain,
        folder / "dynamic.onnx",
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=_reduces(detect()),
        weight_type=QuantType.QInt8,
        nodes_to_exclude=_excluded(plain, how.leave),
        # Products of two activations would be rounded too, twice at run time.
        extra_options={"MatMulConstBOnly": True},
    )
    return onnx.load(folder / "dynamic.onnx")


def _weights(model: GraphModel, _: Sequence[Inputs], how: Rounding, __: Path) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    plain = _without_gemm(_plain_products(model.proto()))
    quantizer = MatMulNBitsQuantizer(
        plain,
        bits=int(how.scheme.removeprefix("int")),
        block_size=_BLOCK,
        is_symmetric=True,
        accuracy_level=4,
        nodes_to_exclude=_excluded(plain, how.leave),
        op_types_to_quantize=("MatMul",),
    )
    quantizer.process()
    made: Any = quantizer.model  # wrapped anew
    return made.model


_Method = Callable[[GraphModel, Sequence[Inputs], Rounding, Path], onnx.ModelProto]
_METHODS: dict[str, _Method] = {"static": _static, "dynamic": _dynamic, "int8": _weights, "int4": _weights}


def _reduces(processor: Processor) -> bool:
    """Whether weights get 7 bits, because products saturate."""
    return not processor.sums_exactly


def _prepared(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Return the graph with shapes inferred and nodes fused, as the static quantizer wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = folder / "prepared.onnx"
    try:
        quant_pre_process(proto, path)
    except Exception:  # symbolic inference gives up on operators that it does not know; it is an aid, no need
        quant_pre_process(proto, path, skip_symbolic_shape=True)
    return onnx.load(path)


def _excluded(proto: onnx.ModelProto, leave: Collection[str]) -> list[str]:
    return [node.name for node in proto.graph.node if site_of(node.name) in leave]


def _without_gemm(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with a MatMul and an Add for each Gemm that allows it, under its name."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    model = ONNXModel(proto)
    model.replace_gemm_with_matmul()
    del model.model.graph.value_info[:]  # it may hold the shapes of weights as they were before
    for node in model.model.graph.node:
        if node.op_type == "MatMul":
            node.name = node.name.removesuffix("_MatMul")
    return model.model


def _plain_products(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with a MatMul for each FusedMatMul by a weight; factor and transposition go into the weight."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        first = any(values.get(name) for name in ("transA", "transBatchA", "transBatchB"))
        if node.op_type != "FusedMatMul" or first or node.input[1] not in weights:
            continue
        weight = numpy_helper.to_array(weights[node.input[1]])
        weight = np.swapaxes(weight, -1, -2) if values.get("transB") else weight
        scaled = np.ascontiguousarray(weight * np.float32(values.get("alpha", 1.0))).astype(weight.dtype)
        name = f"{node.input[1]}.{node.name}"
        proto.graph.initializer.append(numpy_helper.from_array(scaled, name))
        node.CopyFrom(
            onnx.helper.make_node("MatMul", [node.input[0], name], list(node.output), name=node.name)
        )
    used = {name for node in proto.graph.node for name in node.input} | {o.name for o in proto.graph.output}
    inner = any(a.type in (a.GRAPH, a.GRAPHS) for node in proto.graph.node for a in node.attribute)
    if not inner:  # a graph within may read a weight of this one
        left = [tensor for tensor in proto.graph.initializer if tensor.name in used]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(left)
    return proto


def _error(model: GraphModel, made: GraphModel, calibration: Sequence[Inputs]) -> float:
    """Return the relative squared error of the main output on the last batch, which ranges depend on least."""
    batch = calibration[-1]
    with torch.no_grad():
        want, have = (main_output(call(one, batch)).double() for one in (model, made))
    return float(((have - want) ** 2).sum() / (want**2).sum().clamp_min(1e-30))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the advice of ONNX Runtime's tools out of the user's log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
