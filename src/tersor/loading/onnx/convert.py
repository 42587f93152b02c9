"""An ONNX graph becomes a torch module, operator by operator, and is compared with ONNX Runtime before it counts."""

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx.numpy_helper
import onnx.version_converter
from torch import fx, nn

from tersor.errors import ModelError
from tersor.loading.onnx.agreement import check_agreement, with_open_batch
from tersor.loading.onnx.arithmetic import ARITHMETIC
from tersor.loading.onnx.graph_model import PORTS, GraphModel, ports_of
from tersor.loading.onnx.guard import read_graph
from tersor.loading.onnx.settle import settle_numbers
from tersor.loading.onnx.shapes import SHAPES
from tersor.loading.onnx.values import Build, Call, Convert, Value, module_name
from tersor.loading.onnx.weighted import WEIGHTED
from tersor.loading.onnx.windows import WINDOWS
from tersor.loading.references import first_line

#: Every operator that is converted, by name.
OPERATORS: dict[str, Convert] = WEIGHTED | ARITHMETIC | SHAPES | WINDOWS
#: Graphs of older operator sets are brought to this one, so that the table needs one form of each operator.
_OPERATOR_SET = 18


def read_onnx(path: str | Path) -> fx.GraphModule:
    """Return the network of an ONNX file as a torch module, checked to answer as ONNX Runtime does.

    Args:
        path: an `.onnx` file in floating point; weights beside it are taken from its own folder only.

    Returns:
        A module with layers of torch, which can be pruned, trained, quantized and exported.

    Raises:
        ModelError: if the file is unsafe or damaged, holds an operator without counterpart, or answers differently.
    """
    path = Path(path)
    return _converted(read_graph(path), path.stem)


def read_onnx_or_graph(path: str | Path) -> nn.Module:
    """Return the network of an ONNX file as a torch module, or where it cannot be one as a graph for ONNX Runtime.

    Raises:
        ModelError: if the file is unsafe or damaged, or ONNX Runtime does not run it either.
    """
    path = Path(path)
    model = read_graph(path)
    try:
        return _converted(model, path.stem)
    except ModelError as cause:
        why = str(cause).partition(" Converted are ")[0]
        return as_graph(model, why, _identifier(path.stem))


def _converted(model: onnx.ModelProto, name: str) -> fx.GraphModule:
    module = to_torch(model, name)
    settle_numbers(model, module)
    check_agreement(model, module)
    # An input without a shape converts all the same; then the module does not say what it takes.
    with suppress(ModelError):
        module.meta[PORTS] = ports_of(model)
    return module


def as_graph(model: onnx.ModelProto, why: str, name: str = "Graph") -> GraphModel:
    """Return `model` as a module that ONNX Runtime runs, with an open batch axis and a name for every node.

    Args:
        model: a graph with all its weights inside.
        why: why it is not converted.
        name: of the class of the module.
    """
    model = with_open_batch(model)
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{place}"
    kind = type(name, (GraphModel,), {})
    return kind(model, why)


def to_torch(model: onnx.ModelProto, name: str = "Network") -> fx.GraphModule:
    """Return a torch module that computes what an ONNX graph does.

    Raises:
        ModelError: naming the operators that have no counterpart.
    """
    simple = simplified(model)
    unknown = Counter(
        n.op_type for n in simple.graph.node if n.op_type not in OPERATORS or n.domain not in _OWN
    )
    if unknown:
        first = {n.op_type: n.name or n.output[0] for n in reversed((*model.graph.node, *simple.graph.node))}
        told = ", ".join(
            f"{kind} ({count}x, first {first[kind]!r})" for kind, count in sorted(unknown.items())
        )
        quantized = any(kind in _INTEGERS for kind in unknown)
        hint = (
            " It is quantized already: pass the floating-point model that it was made from."
            if quantized
            else ""
        )
        raise ModelError(
            f"The ONNX graph has operators that are not converted: {told}.{hint} "
            f"Converted are {', '.join(sorted(OPERATORS))}."
        )
    return _Conversion(simple).module(name)


_OWN = ("", "ai.onnx")
_INTEGERS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "MatMulInteger",
    "ConvInteger",
)


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in one operator set, with constants folded and shapes inferred."""
    from onnxscript import optimizer

    model = onnx.ModelProto.FromString(model.SerializeToString())
    own = next((o for o in model.opset_import if o.domain in _OWN), None)
    try:
        if own is not None and own.version < _OPERATOR_SET:
            model = onnx.version_converter.convert_version(model, _OPERATOR_SET)
        model = optimizer.optimize(model, onnx_shape_inference=True)
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as cause:  # the converter and the optimizer raise errors of many kinds
        raise ModelError(f"The ONNX graph cannot be simplified: {first_line(cause)}") from cause


@dataclass(slots=True)
class _Conversion:
    """Walks over a graph."""

    model: onnx.ModelProto
    build: Build = field(default_factory=Build)
    values: dict[str, Value] = field(default_factory=dict)
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)

    def module(self, name: str) -> fx.GraphModule:
        """Return the finished module."""
        graph = self.model.graph
        weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.values = {name: Value(constant=array) for name, array in weights.items()}
        self.shapes = {v.name: _shape_of(v) for v in (*graph.input, *graph.value_info, *graph.output)}
        self.shapes |= {name: array.shape for name, array in weights.items()}
        for given in graph.input:
            if given.name not in weights:
                self.build.batch = self.build.batch or int((self.shapes[given.name] or (0,))[0] or 0)
                self.values[given.name] = Value(self.build.graph.placeholder(_identifier(given.name)))
        uses = Counter(name for node in graph.node for name in node.input)
        for node in graph.node:
            self._node(node, uses)
        results = [self.build.tensor(self.values[out.name]) for out in graph.output]
        self.build.graph.output(results[0] if len(results) == 1 else tuple(results))
        made = fx.GraphModule(self.build.root, self.build.graph, class_name=_identifier(name)).eval()
        made.graph.eliminate_dead_code()
        made.delete_all_unused_submodules()
        made.recompile()
        return made

    def _node(self, node: onnx.NodeProto, uses: Mapping[str, int]) -> None:
        call = self._call(node, uses)
        try:
            made = OPERATORS[node.op_type](self.build, call)
        except ModelError as cause:
            where = node.name or node.output[0]
            raise ModelError(f"The ONNX {node.op_type} {where!r} cannot be converted: {cause}.") from cause
        results = [made] if isinstance(made, Value) else list(made)
        self.values |= dict(zip(node.output, results, strict=False))

    def _call(self, node: onnx.NodeProto, uses: Mapping[str, int]) -> Call:
        attributes = {a.name: _attribute(a) for a in node.attribute}
        shape = self.shapes.get(node.input[0]) if node.input else None
        if shape is not None:
            attributes |= {"#rank": len(shape), "#spatial": shape[2:]}
        named = node.input if node.op_type in ("Gather", "Add") else node.input[1:]
        weights = [name for name in named if self.values.get(name, Value()).constant is not None]
        computed = [n for n in node.input if n and self.values[n].constant is None]
        return Call(
            node.op_type,
            module_name(node.name, node.op_type, weights),
            tuple(self.values[name] if name else None for name in node.input),
            attributes,
            sum(bool(name) for name in node.output),
            all(uses[name] == 1 for name in computed),
        )


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _shape_of(value: onnx.ValueInfoProto) -> Any:
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)


def _identifier(name: str) -> str:
    found = re.sub(r"\W", "_", name)
    return f"_{found}" if not found or found[0].isdigit() else found
