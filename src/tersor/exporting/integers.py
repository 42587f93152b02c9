"""Lower fake quantizers to real integers: codes folded into the file, QuantizeLinear and DequantizeLinear around."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from tersor.quantization.capture import get_tensor, operands
from tersor.quantization.fake_quantize import FakeQuantize, FakeQuantizeBias
from tersor.quantization.insert import QUANTIZERS, bias_calls, parameter_of, quantizer_calls
from tersor.quantization.model import QuantizedModel
from tersor.quantization.operators import OPS

ATEN = torch.ops.aten

#: First opset with 16-bit and 4-bit codes and with blocks.
OPSET = 21


def lower(model: nn.Module) -> nn.Module:
    """Return the integer form of `model`: what to export, with `translations()` and at least `OPSET`.

    Weights become integer buffers with a DequantizeLinear, activations a
    QuantizeLinear and DequantizeLinear pair, which runtimes fuse into integer kernels.

    Args:
        model: any model; one that is not a `QuantizedModel` has no integers and comes back as it is.

    Returns:
        A module with integers in its buffers that computes what `model` computes, bit for bit.

    Example:
        >>> from tersor.quantization.quantize import quantize
        >>> x = torch.randn(8, 4)
        >>> small = quantize(nn.Sequential(nn.Linear(4, 2)), (x[:2],), [(x,)])
        >>> torch.equal(lower(small)(x), small(x))
        True
    """
    if not isinstance(model, QuantizedModel):
        return model
    graph_module = copy.deepcopy(model.graph_module).eval()
    for node, quantizer in bias_calls(graph_module):
        _lower_bias(graph_module, node, quantizer)
    for node, quantizer in quantizer_calls(graph_module):
        if parameter_of(node):
            _lower_weight(graph_module, node, quantizer)
        else:
            _lower_activation(graph_module, node, quantizer)
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return fx.GraphModule(graph_module, graph_module.graph)


@torch.no_grad()
def _lower_bias(graph_module: fx.GraphModule, node: fx.Node, quantizer: FakeQuantizeBias) -> None:
    """Replace a rounded bias by its 32-bit sums and a dequantization."""
    codes = quantizer.codes(get_tensor(graph_module, parameter_of(node) or "")).to(torch.int32)
    step = quantizer.step().expand_as(codes)
    with graph_module.graph.inserting_before(node):
        stored = zip(_PARTS, (codes, step, torch.zeros_like(codes)), strict=True)
        buffers = [_buffer(graph_module, f"{node.name}_{part}", tensor) for part, tensor in stored]
        value = graph_module.graph.call_function(OPS.dequantize.default, (*buffers, 0, 0))
    node.replace_all_uses_with(value)
    graph_module.graph.erase_node(node)


@torch.no_grad()
def _lower_weight(graph_module: fx.GraphModule, node: fx.Node, quantizer: FakeQuantize) -> None:
    """Replace a rounded weight by its codes and a dequantization; for a MatMul, transposed as the runtime reads it."""
    spec, (step, zero) = quantizer.spec, quantizer.grid()
    codes = quantizer.codes(get_tensor(graph_module, parameter_of(node) or ""))
    axis = -1 if spec.axis is None else spec.axis
    stored = [codes.to(spec.dtype), step, zero.expand_as(step).to(spec.dtype)]
    for reader in list(node.users):
        transposed = reader.target is ATEN.linear.default and operands(reader)[0].meta["val"].dim() != 2
        tensors = [t.t().contiguous() if transposed and t.dim() == 2 else t for t in stored]
        name = f"{node.name}_{reader.name}" if transposed else node.name
        with graph_module.graph.inserting_before(reader):
            buffers = [
                _buffer(graph_module, f"{name}_{part}", t) for part, t in zip(_PARTS, tensors, strict=True)
            ]
            value = graph_module.graph.call_function(
                OPS.dequantize.default, (*buffers, 1 - axis if transposed else axis, spec.block)
            )
        if transposed:
            _as_matmul(graph_module.graph, reader, value)
        else:
            reader.replace_input_with(node, value)
    if not node.users:
        graph_module.graph.erase_node(node)


_PARTS = ("codes", "step", "zero")


def _buffer(graph_module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    graph_module.register_buffer(name, value.detach().clone())
    return graph_module.graph.get_attr(name)


def _as_matmul(graph: fx.Graph, linear: fx.Node, weight: fx.Node) -> None:
    """Replace `linear` by `x @ weight + bias`, the form that runtimes fuse over more than two axes."""
    with graph.inserting_before(linear):
        product = graph.call_function(ATEN.matmul.default, (operands(linear)[0], weight))
        if len(operands(linear)) > 2 and operands(linear)[2] is not None:
            product = graph.call_function(ATEN.add.Tensor, (product, operands(linear)[2]))
    product.meta["val"] = linear.meta["val"]
    linear.replace_all_uses_with(product)
    graph.erase_node(linear)


def _lower_activation(graph_module: fx.GraphModule, node: fx.Node, quantizer: FakeQuantize) -> None:
    """Replace a rounded activation by a quantization and a dequantization on buffers that its grid's uses share."""
    spec, name = quantizer.spec, str(node.target).removeprefix(f"{QUANTIZERS}.")
    step, zero = quantizer.grid()
    graph = graph_module.graph
    with graph.inserting_before(node):
        scale = _buffer(graph_module, f"{name}_step", step)
        origin = _buffer(graph_module, f"{name}_zero", zero.to(spec.dtype))
        codes = graph.call_function(
            OPS.quantize.default, (operands(node)[0], scale, origin, spec.qmin, spec.qmax)
        )
        value = graph.call_function(OPS.dequantize.default, (codes, scale, origin, -1, 0))
    node.replace_all_uses_with(value)
    graph.erase_node(node)


def translations() -> dict[Any, Callable[..., Any]]:
    """Return the ONNX function of each operator that a lowered module may hold."""
    from onnxscript import opset21 as op

    def quantize(x, step, zero, qmin: int, qmax: int):
        del qmin, qmax  # The whole range of the type, which QuantizeLinear saturates to.
        return op.QuantizeLinear(x, step, zero)

    def dequantize(codes, step, zero, axis: int, block: int):
        if axis < 0:
            return op.DequantizeLinear(codes, step, zero)
        if block:
            return op.DequantizeLinear(codes, step, zero, axis=axis, block_size=block)
        return op.DequantizeLinear(codes, step, zero, axis=axis)

    def global_average_pool(x):
        return op.GlobalAveragePool(x)

    return {
        OPS.quantize.default: quantize,
        OPS.dequantize.default: dequantize,
        OPS.global_average_pool.default: global_average_pool,
    }
