"""`keras.ops` and merging layers as torch functions, as a table."""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import fx
from torch.nn import functional

from tersor.errors import ModelError

#: Adds nodes for (graph, operation, positional and named arguments) and returns the last one.
Emit: TypeAlias = Callable[..., fx.Node]


def _function(function: Callable[..., Any]) -> Emit:
    return lambda graph, _operation, *arguments: graph.call_function(function, arguments)


def _chain(function: Callable[..., Any]) -> Emit:
    """Apply a function of two to a list, from the left."""
    return lambda graph, _layer, parts: reduce(lambda a, b: graph.call_function(function, (a, b)), parts)


def _mean_of(graph: fx.Graph, _layer: Any, parts: Any) -> fx.Node:
    total = _chain(operator.add)(graph, _layer, parts)
    return graph.call_function(operator.truediv, (total, len(parts)))


def _concatenate(graph: fx.Graph, layer: Any, parts: Any, axis: int | None = None) -> fx.Node:
    return graph.call_function(torch.cat, (list(parts), layer.axis if axis is None else axis))


def _reduced(function: Callable[..., Any]) -> Emit:
    def emit(graph: fx.Graph, operation: Any, x: fx.Node) -> fx.Node:
        axes = operation.axis
        if axes is None:
            raise ModelError("a reduction over all axes, the batch included, is not converted")
        axes = tuple(axes) if isinstance(axes, list | tuple) else (int(axes),)
        return graph.call_function(function, (x, axes, bool(operation.keepdims)))

    return emit


def _axis_function(function: Callable[..., Any], attribute: str = "axis") -> Emit:
    return lambda graph, operation, x: graph.call_function(function, (x, getattr(operation, attribute)))


def _transposed(graph: fx.Graph, operation: Any, x: fx.Node) -> fx.Node:
    if operation.axes is None:
        raise ModelError("a transpose without axes is not converted")
    return graph.call_function(torch.permute, (x, tuple(operation.axes)))


def _clipped(graph: fx.Graph, operation: Any, x: fx.Node) -> fx.Node:
    return graph.call_function(torch.clamp, (x, float(operation.x_min), float(operation.x_max)))


def _cast(graph: fx.Graph, operation: Any, x: fx.Node) -> fx.Node:
    return graph.call_method("to", (x, getattr(torch, str(operation.dtype))))


def _repeated(graph: fx.Graph, layer: Any, x: fx.Node) -> fx.Node:
    wide = graph.call_function(torch.unsqueeze, (x, 1))
    return graph.call_method("repeat", (wide, 1, int(layer.n), 1))


def _item(graph: fx.Graph, _operation: Any, x: fx.Node, index: Any) -> fx.Node:
    # A file gives the index as a list, which torch would take for a list of rows.
    return graph.call_function(operator.getitem, (x, tuple(index) if isinstance(index, list) else index))


def _gelu(graph: fx.Graph, operation: Any, x: fx.Node) -> fx.Node:
    mode = "tanh" if operation.approximate else "none"
    return graph.call_function(functional.gelu, (x,), {"approximate": mode})


def _leaky(graph: fx.Graph, operation: Any, x: fx.Node) -> fx.Node:
    return graph.call_function(functional.leaky_relu, (x, float(operation.negative_slope)))


#: Functions of one tensor that do not care for the order of its axes, by the class of the Keras operation.
ELEMENTWISE: dict[str, Emit] = {
    "Relu": _function(torch.relu),
    "Relu6": _function(functional.relu6),
    "Sigmoid": _function(torch.sigmoid),
    "Tanh": _function(torch.tanh),
    "Silu": _function(functional.silu),
    "Gelu": _gelu,
    "LeakyRelu": _leaky,
    "Elu": _function(functional.elu),
    "Selu": _function(functional.selu),
    "Softsign": _function(functional.softsign),
    "HardSigmoid": _function(functional.hardsigmoid),
    "HardSilu": _function(functional.hardswish),
    "Exp": _function(torch.exp),
    "Log": _function(torch.log),
    "Sqrt": _function(torch.sqrt),
    "Rsqrt": _function(torch.rsqrt),
    "Square": _function(torch.square),
    "Absolute": _function(torch.abs),
    "Abs": _function(torch.abs),
    "Negative": _function(operator.neg),
    "Sin": _function(torch.sin),
    "Cos": _function(torch.cos),
    "Erf": _function(torch.erf),
    "Clip": _clipped,
    "Cast": _cast,
    "StopGradient": lambda _graph, _operation, x: x,
    "ConvertToTensor": lambda _graph, _operation, x: x,
}
#: Functions of several tensors that broadcast.
BROADCAST: dict[str, Emit] = {
    "Add": _function(operator.add),
    "Subtract": _function(operator.sub),
    "Multiply": _function(operator.mul),
    "Divide": _function(operator.truediv),
    "TrueDivide": _function(operator.truediv),
    "Power": _function(operator.pow),
    "Maximum": _function(torch.maximum),
    "Minimum": _function(torch.minimum),
    "Equal": _function(torch.eq),
    "NotEqual": _function(torch.ne),
    "Greater": _function(torch.gt),
    "Less": _function(torch.lt),
}
#: Layers that merge a list of tensors of one shape.
MERGING: dict[str, Emit] = {
    "Add": _chain(operator.add),
    "Subtract": _chain(operator.sub),
    "Multiply": _chain(operator.mul),
    "Maximum": _chain(torch.maximum),
    "Minimum": _chain(torch.minimum),
    "Average": _mean_of,
}
#: Functions that name axes, in Keras's order of them.
BY_AXIS: dict[str, Emit] = {
    "Concatenate": _concatenate,
    "RepeatVector": _repeated,
    "Matmul": _function(torch.matmul),
    "GetItem": _item,
    "Mean": _reduced(torch.mean),
    "Sum": _reduced(torch.sum),
    "Max": _reduced(torch.amax),
    "Min": _reduced(torch.amin),
    "Softmax": _axis_function(torch.softmax),
    "LogSoftmax": _axis_function(torch.log_softmax),
    "ExpandDims": _axis_function(torch.unsqueeze),
    "Squeeze": _axis_function(torch.squeeze),
    "Transpose": _transposed,
    "Stack": lambda graph, operation, parts: graph.call_function(torch.stack, (list(parts), operation.axis)),
}
