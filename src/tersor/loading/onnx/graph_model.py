"""An ONNX graph that stays a graph: a module without layers or parameters, whose answers come from ONNX Runtime."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tersor.errors import DataError, ModelError
from tersor.loading.references import first_line

if TYPE_CHECKING:
    import onnx

#: Operators that round, and operators that compute on what was rounded.
_ROUNDING = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_ON_INTEGERS = frozenset(
    {
        "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm", "QAttention", "MatMulNBits",
        "MatMulBnb4", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM", "GatherBlockQuantized",
        "QLinearAdd", "QLinearMul", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSigmoid",
        "QLinearLeakyRelu", "QLinearConcat", "QLinearSoftmax", "QLinearReduceMean", "QLinearWhere", "QMoE",
        "QEmbedLayerNormalization", "QOrderedMatMul", "QOrderedAttention",
    }
)  # fmt: skip
#: ONNX's element types that a tensor of torch can hold.
_TYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64,
}  # fmt: skip


#: Key in `GraphModule.meta` of the inputs that a converted graph had.
PORTS = "onnx_inputs"


@dataclass(frozen=True, slots=True)
class Port:
    """An input of a graph.

    Attributes:
        name: as the argument of `forward` is called.
        dtype: type of its elements.
        shape: its axes; None where one is open.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]

    def array(self, tensor: Tensor) -> np.ndarray:
        """Return `tensor` as this input takes it.

        Raises:
            DataError: if its shape does not fit.
        """
        fits = len(self.shape) == tensor.dim() and all(
            want in (None, have) for want, have in zip(self.shape, tensor.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("?" if axis is None else str(axis) for axis in self.shape)
            raise DataError(
                f"The ONNX graph takes {self.name}[{wanted}], and the data gives {list(tensor.shape)}. "
                "Reshape the samples in the dataset."
            )
        return np.ascontiguousarray(tensor.detach().cpu().to(self.dtype).numpy())


class GraphModel(nn.Module):
    """An ONNX graph as a module: it can be run, exported, rounded and measured; it has nothing to prune or train.

    Attributes:
        why: why it was not converted to layers of torch.
        content: the file, with all weights inside, as a buffer of bytes.
        ports: its inputs.
        forward: runs the graph; its parameters have the names of the inputs.
    """

    content: Tensor
    forward: Callable[..., Any]

    def __init__(self, graph: "onnx.ModelProto", why: str) -> None:
        """Take `graph` as it is.

        Raises:
            ModelError: if ONNX Runtime does not open it, it is over 2 GB, or an input is no tensor.
        """
        super().__init__()
        try:
            content = graph.SerializeToString()
        except Exception as cause:  # protobuf's own, by version
            raise ModelError(
                f"The ONNX graph is over 2 GB with its weights and cannot be held in one file ({first_line(cause)})."
            ) from cause
        self.why = why
        self.register_buffer("content", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self.ports = ports_of(graph)
        self.forward = _forward(content, self.ports)

    def proto(self) -> "onnx.ModelProto":
        """Return the graph, parsed anew."""
        import onnx

        return onnx.ModelProto.FromString(self.content.numpy().tobytes())

    @cached_property
    def layers(self) -> Mapping[str, tuple[str, tuple[int, ...]]]:
        """Operator and shape of the weight of each node that multiplies by one, by the node's name."""
        return layers_of(self.proto())

    @cached_property
    def integers(self) -> tuple[str, ...]:
        """Names of the nodes that compute on integers."""
        return integer_nodes(self.proto())

    @property
    def quantized(self) -> bool:
        """Whether the graph rounds anything."""
        return bool(self.integers) or any(node.op_type in _ROUNDING for node in self.proto().graph.node)


def refuse_graph(model: object, what: str) -> None:
    """Refuse a graph where layers of torch are needed.

    Args:
        model: any model.
        what: what was asked for, to begin a sentence with.

    Raises:
        ModelError: if `model` is a `GraphModel`, with the reason and what can be done instead.
    """
    if isinstance(model, GraphModel):
        raise ModelError(
            f"{what} needs layers of torch, and this ONNX file stays a graph. {model.why} Pass the network in PyTorch; "
            "or use `tersor optimize` or `tersor quantize`, which round and measure the graph itself."
        )


def ports_of(graph: "onnx.ModelProto") -> tuple[Port, ...]:
    """Return the inputs of a graph that are no weights.

    Raises:
        ModelError: naming an input that is no tensor of numbers.
    """
    weights = {tensor.name for tensor in graph.graph.initializer}
    found = []
    for value in graph.graph.input:
        if value.name in weights:
            continue
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or kind.elem_type not in _TYPES:
            raise ModelError(
                f"The input {value.name!r} of the ONNX graph is no tensor of numbers, which is all that data can give."
            )
        if not kind.HasField("shape"):
            raise ModelError(f"The input {value.name!r} of the ONNX graph has no shape; export it with one.")
        shape = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim)
        found.append(Port(re.sub(r"\W", "_", value.name), _TYPES[kind.elem_type], shape))
    return tuple(found)


def _forward(content: bytes, ports: tuple[Port, ...]) -> Callable[..., Any]:
    """Return a function with the inputs as parameters that runs the graph, on one thread."""
    session = open_content(content)
    names = [entry.name for entry in session.get_inputs()]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(port.name, kind) for port in ports])

    def forward(*positional: Tensor, **named: Tensor) -> Any:
        given = signature.bind(*positional, **named).arguments
        arrays = [port.array(given[port.name]) for port in ports]
        found = session.run(None, dict(zip(names, arrays, strict=True)))
        answers = tuple(torch.from_numpy(np.asarray(array)) for array in found)
        return answers[0] if len(answers) == 1 else answers

    forward.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]  # functions carry attributes
    return forward


def open_content(content: bytes) -> Any:
    """Return ONNX Runtime's session of a serialized graph, on one thread.

    Raises:
        ModelError: if the runtime does not open it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads, options.inter_op_num_threads = 4, 1, 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as cause:  # the runtime has many classes of errors
        raise ModelError(f"ONNX Runtime does not open the graph: {first_line(cause)}") from cause


def integer_nodes(graph: "onnx.ModelProto") -> tuple[str, ...]:
    """Return the names of the nodes with weights, or products, that compute on integers."""
    producers = {name: node.op_type for node in graph.graph.node for name in node.output}
    return tuple(
        node.name or node.output[0]
        for node in graph.graph.node
        if node.op_type in _ON_INTEGERS
        or (
            node.op_type in ("Conv", "MatMul", "Gemm", "ConvTranspose", "FusedMatMul")
            and any(producers.get(name) == "DequantizeLinear" for name in node.input[1:2])
        )
    )


def layers_of(graph: "onnx.ModelProto") -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """Return operator and shape of the weight of each node that multiplies by one, by the node's name."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    for node in graph.graph.node:  # a rounded weight is read through its DequantizeLinear
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return {
        node.name or node.output[0]: (node.op_type, shape)
        for node in graph.graph.node
        if node.op_type not in _ROUNDING
        and (shape := next((shapes[i] for i in node.input[1:] if len(shapes.get(i, ())) >= 2), None))
        is not None
    }
