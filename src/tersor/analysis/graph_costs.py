"""Multiply-adds of an ONNX graph, node by node, from the shapes that one run shows."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx

from tersor.loading.inputs import Inputs, batch_size, flatten
from tersor.loading.onnx.graph_model import GraphModel, open_content

Shape = Sequence[int]


class Cost(NamedTuple):
    """What one node costs a sample: its name, operator, weight, multiply-adds and bytes moved."""

    name: str
    operation: str
    parameter: str
    macs: int
    bytes: int


def costs_of(model: GraphModel, inputs: Inputs) -> tuple[Cost, ...]:
    """Return the cost of each node of the main graph, in order; inner graphs of Loop and If are not looked into.

    Args:
        model: a graph; run once.
        inputs: example inputs.
    """
    proto = model.proto()
    held = {tensor.name: _Seen(tuple(tensor.dims), _width(tensor)) for tensor in proto.graph.initializer}
    seen = held | _run(model, proto, inputs)
    found, samples = [], batch_size(inputs)
    for node in proto.graph.node:
        ends = [seen[name] for name in (*node.input, *node.output) if name in seen]
        weight = next((name for name in node.input[1:] if len(held.get(name, _NOTHING).shape) >= 2), "")
        moved = sum(math.prod(end.shape) * end.width for end in ends)
        found.append(
            Cost(node.name, node.op_type, weight, _macs(node, seen) // samples, int(moved) // samples)
        )
    return tuple(found)


def parameters_of(model: GraphModel) -> int:
    """Return the number of weights of a graph; 64-bit integers, which tell shapes, do not count."""
    return sum(
        math.prod(tensor.dims)
        for tensor in model.proto().graph.initializer
        if tensor.data_type != onnx.TensorProto.INT64
    )


class _Seen(NamedTuple):
    """Shape of a value, and bytes of each of its elements."""

    shape: tuple[int, ...]
    width: float


_NOTHING = _Seen((), 0.0)


def _width(tensor: onnx.TensorProto) -> float:
    if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        return 0.5
    return onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _run(model: GraphModel, proto: onnx.ModelProto, inputs: Inputs) -> dict[str, _Seen]:
    """Return every value of the main graph that is a tensor."""
    known = {value.name for value in proto.graph.output}
    names = [name for node in proto.graph.node for name in node.output if name and name not in known]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_content(proto.SerializeToString())
    arrays = [port.array(tensor) for port, tensor in zip(model.ports, _ordered(model, inputs), strict=True)]
    given = dict(zip([entry.name for entry in session.get_inputs()], arrays, strict=True))
    told = [entry.name for entry in session.get_outputs()]
    found = given | dict(zip(told, session.run(None, given), strict=True))
    return {n: _Seen(a.shape, a.itemsize) for n, a in found.items() if isinstance(a, np.ndarray)}


def _ordered(model: GraphModel, inputs: Inputs) -> Sequence[Any]:
    return [inputs[port.name] for port in model.ports] if isinstance(inputs, dict) else flatten(inputs)


def _macs(node: onnx.NodeProto, seen: Mapping[str, _Seen]) -> int:
    count = _FORMULAS.get(node.op_type)
    shapes = [seen.get(name, _NOTHING).shape for name in node.input]
    out = seen.get(node.output[0], _NOTHING).shape
    return int(count(node, shapes, out)) if count and len(shapes) > 1 else 0


def _attribute(node: onnx.NodeProto, name: str, default: Any = 0) -> Any:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def _product(node: onnx.NodeProto, shapes: Sequence[Shape], out: Shape) -> int:
    last = shapes[0][-2:] if _attribute(node, "transA") else shapes[0][-1:]
    return math.prod(out) * (last[0] if last else 1)


def _recurrent(_: onnx.NodeProto, shapes: Sequence[Shape], __: Shape) -> int:
    return math.prod(shapes[0][:2]) * (math.prod(shapes[1]) + math.prod(shapes[2]))


def _einsum(node: onnx.NodeProto, shapes: Sequence[Shape], out: Shape) -> int:
    terms = _attribute(node, "equation", b"").decode().replace(" ", "").partition("->")[0].split(",")
    sizes = {letter: size for term, shape in zip(terms, shapes, strict=False) for letter, size in
             zip(reversed(term.replace("...", "")), reversed(shape), strict=False)}  # fmt: skip
    return max(math.prod(out), math.prod(sizes.values()))


_Formula = Callable[[onnx.NodeProto, Sequence[Shape], Shape], int]
#: Operator -> multiply-adds, of (node, shapes of its inputs, shape of its output).
_FORMULAS: dict[str, _Formula] = {
    "Conv": lambda _, shapes, out: math.prod(out) * math.prod(shapes[1][1:]),
    "ConvTranspose": lambda _, shapes, __: math.prod(shapes[0]) * math.prod(shapes[1][1:]),
    "QLinearConv": lambda _, shapes, out: math.prod(out) * math.prod(shapes[3][1:]),
    "MatMulNBits": lambda node, _, out: math.prod(out) * _attribute(node, "K"),
    "Einsum": _einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
    **dict.fromkeys(("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "QLinearMatMul", "MatMulInteger", "QGemm",
                     "DynamicQuantizeMatMul", "MatMulIntegerToFloat"), _product),
}  # fmt: skip
_FORMULAS["FusedConv"] = _FORMULAS["ConvInteger"] = _FORMULAS["Conv"]
