"""Lower fake quantizers to real integers: codes folded into the file, QuantizeLinear and DequantizeLinear around."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from tersor.exporting.codes_of_tables import hold_codes
from tersor.quantization.capture import get_tensor, hold_tensor, operands
from tersor.quantization.fake_quantize import FakeQuantize, FakeQuantizeBias
from tersor.quantization.insert import QUANTIZERS, bias_calls, parameter_of, quantizer_at, quantizer_calls
from tersor.quantization.model import QuantizedModel
from tersor.quantization.operators import OPS

ATEN = torch.ops.aten

#: First opset with 16-bit and 4-bit codes and with blocks.
OPSET = 21


def lower(model: nn.Module) -> nn.Module:
    """Return the integer form of `model`: what to export, with `translations()` and at least `OPSET`.

    Weights become integer buffers with a DequantizeLinear, activations a QuantizeLinear and DequantizeLinear pair;
    runtimes fuse them into integer kernels. Products with ranges taken at run time become DynamicQuantizeLinear and
    MatMulInteger. Pass the written program through `pack` if the scheme has 4-bit weights, and open the file with
    `session_entries`.

    Args:
        model: any model; one that is not a `QuantizedModel` has no integers and comes back as it is.

    Returns:
        A module with integers in its buffers that computes what `model` computes, bit for bit where ranges are static.

    Example:
        >>> from tersor.quantization.quantize import quantize
        >>> x = torch.randn(8, 4)
        >>> small = quantize(nn.Sequential(nn.Linear(4, 2)), (x[:2],), [(x,)], scheme="static")
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
    for node, quantizer in quantizer_calls(graph_module):
        _lower_activation(graph_module, node, quantizer)
    hold_codes(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return fx.GraphModule(graph_module, graph_module.graph)


def session_entries(model: nn.Module) -> dict[str, str]:
    """Return the session options that the file of `model` needs to be fast in ONNX Runtime.

    Accuracy level 4 lets products with 4- and 8-bit blocks round what they read to 8 bits inside the kernel, level 1
    does not; the scheme says which one the model was simulated with.

    Example:
        >>> session_entries(nn.Linear(2, 2))
        {}
    """
    if isinstance(model, QuantizedModel) and model.scheme.weight.block:
        return {"session.qdq_matmulnbits_accuracy_level": "1" if model.scheme.activation is None else "4"}
    return {}


def pack(program: Any) -> None:
    """Store 4-bit codes in 4 bits, two to a byte, and leave out notes about Python source lines, in place.

    The notes can weigh more than the codes of a small network.

    Args:
        program: what `torch.onnx.export` returned for a lowered module.
    """
    import onnx_ir as ir

    graph = program.model.graph
    four = {ir.DataType.INT4, ir.DataType.UINT4}
    for noted in (*graph, *graph.initializers.values()):
        noted.metadata_props.clear()
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Cast" else None
        if source is None or not source.is_initializer() or node.attributes["to"].as_int() not in four:
            continue
        kind = ir.DataType(node.attributes["to"].as_int())
        value = _stored(graph, f"{source.name}_{kind.name.lower()}", source.const_value.numpy(), kind)
        node.outputs[0].replace_all_uses_with(value)
        graph.remove(node, safe=True)
        if not source.uses():
            del graph.initializers[source.name]


def make_unsigned(program: Any) -> None:
    """Store signed 4-bit codes from 0 to 15, with a zero point of 8: the same values, in place.

    Args:
        program: what `pack` has packed.
    """
    import onnx_ir as ir

    graph = program.model.graph
    for source in list(graph.initializers.values()):
        if source.dtype == ir.DataType.INT4:
            codes = source.const_value.numpy().astype("int8") + 8
            value = _stored(graph, f"{source.name}_unsigned", codes, ir.DataType.UINT4)
            source.replace_all_uses_with(value)
            del graph.initializers[source.name]


def keep_axes(program: Any) -> None:
    """Write each choice of one index along an axis as one of length one and a squeeze: the same values, in place.

    OpenVINO 2026.4 puts an axis of length one before the others where such a choice follows a product in integers.

    Args:
        program: what `pack` has packed.
    """
    import onnx_ir as ir

    graph = program.model.graph
    for node in list(graph):
        index = node.inputs[1].const_value if node.op_type == "Gather" else None
        if index is None or index.numpy().ndim or node.inputs[0].is_initializer():
            continue
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        chosen = _stored(graph, f"{node.name}_index", index.numpy().reshape(1), ir.DataType.INT64)
        axes = _stored(graph, f"{node.name}_axes", np.array([axis]), ir.DataType.INT64)
        longer = ir.node("Gather", [node.inputs[0], chosen], {"axis": axis})
        squeezed = ir.node("Squeeze", [longer.outputs[0], axes])
        values = (node.outputs[0],), (squeezed.outputs[0],)
        ir.convenience.replace_nodes_and_values(graph, node, (node,), (longer, squeezed), *values)


def swap_rounded(program: Any) -> None:
    """Let products of two rounded tensors swap axes after the rounding, not before it: the same values, in place.

    OpenVINO's kernel swaps the axes of what it multiplies by itself; before the rounding it takes an operation.

    Args:
        program: what `pack` has packed.
    """
    graph = program.model.graph
    for product in list(graph):
        sides = [value.producer() for value in product.inputs] if product.op_type == "MatMul" else []
        if len(sides) == 2 and all(_rounding(side) is not None for side in sides):
            for side in sides:
                _swap_after(graph, side)


def _rounding(node: Any) -> Any:
    """Return the QuantizeLinear whose codes the DequantizeLinear `node` alone reads; None if it is something else."""
    if node is None or node.op_type != "DequantizeLinear" or len(node.outputs[0].uses()) > 1:
        return None
    maker = node.inputs[0].producer()
    alone = maker is not None and maker.op_type == "QuantizeLinear" and len(maker.outputs[0].uses()) == 1
    return maker if alone else None


def _swap_after(graph: Any, values: Any) -> None:
    """Move the transpositions in front of a rounding, which gives `values`, behind it."""
    import onnx_ir as ir

    rounding = _rounding(values)
    swap = rounding.inputs[0].producer()
    while swap is not None and swap.op_type == "Transpose" and len(swap.outputs[0].uses()) == 1:
        rounding.replace_input_with(0, swap.inputs[0])
        after = ir.node("Transpose", [values.outputs[0]], {"perm": swap.attributes["perm"].as_ints()})
        values.outputs[0].replace_all_uses_with(after.outputs[0])
        after.replace_input_with(0, values.outputs[0])
        graph.insert_after(values, after)
        graph.remove(swap, safe=True)
        swap = rounding.inputs[0].producer()


def _stored(graph: Any, name: str, codes: Any, kind: Any) -> Any:
    """Return a new initializer of `graph` that holds `codes` in the type `kind`."""
    import onnx_ir as ir

    tensor = ir.tensor(codes.astype(kind.numpy()), dtype=kind)
    value = ir.Value(name=name, const_value=tensor)
    value.type, value.shape = ir.TensorType(kind), ir.Shape(codes.shape)
    graph.register_initializer(value)
    return value


@torch.no_grad()
def _lower_bias(graph_module: fx.GraphModule, node: fx.Node, quantizer: FakeQuantizeBias) -> None:
    """Replace a rounded bias by its 32-bit sums and a dequantization."""
    codes = quantizer.codes(get_tensor(graph_module, parameter_of(node) or "")).to(torch.int32)
    step = quantizer.step().expand_as(codes)
    with graph_module.graph.inserting_before(node):
        stored = zip(_PARTS, (codes, step, torch.zeros_like(codes)), strict=True)
        buffers = [hold_tensor(graph_module, f"{node.name}_{part}", tensor) for part, tensor in stored]
        value = graph_module.graph.call_function(OPS.dequantize.default, (*buffers, 0, 0, 32))
    node.replace_all_uses_with(value)
    graph_module.graph.erase_node(node)


@torch.no_grad()
def _lower_weight(graph_module: fx.GraphModule, node: fx.Node, quantizer: FakeQuantize) -> None:
    """Replace a rounded weight by its codes and a dequantization, for each layer that reads it."""
    spec, (step, zero) = quantizer.spec, quantizer.grid()
    codes = quantizer.codes(get_tensor(graph_module, parameter_of(node) or ""))
    stored = [codes.to(spec.dtype), step, zero.expand_as(step).to(spec.dtype)]
    graph, axis = graph_module.graph, -1 if spec.axis is None else spec.axis
    for reader in list(node.users):
        as_product = reader.target is ATEN.linear.default and _is_product(graph_module, reader)
        name, tensors = node.name, stored
        if as_product:
            # The runtime reads a product's right side as (inputs, outputs); vectors of steps stay as they are.
            tensors = [tensor.t().contiguous() if tensor.dim() == 2 else tensor for tensor in stored]
            name, axis = f"{node.name}_{reader.name}", 1 - axis
        with graph.inserting_before(reader):
            buffers = [
                hold_tensor(graph_module, f"{name}_{part}", t)
                for part, t in zip(_PARTS, tensors, strict=True)
            ]
            value = graph.call_function(
                OPS.dequantize.default, (*buffers, axis, spec.block, spec.storage_bits)
            )
        if as_product:
            _as_product(graph_module, reader, value)
        else:
            reader.replace_input_with(node, value)
    if not node.users:
        graph.erase_node(node)


def _is_product(graph_module: fx.GraphModule, linear: fx.Node) -> bool:
    """Whether a linear layer is written as MatMul and Add; static layers over two axes are a Gemm."""
    rounds = quantizer_at(graph_module, operands(linear)[0])
    return linear.meta["val"].dim() != 2 or rounds is None or rounds.spec.dynamic


_PARTS = ("codes", "step", "zero")


def _as_product(graph_module: fx.GraphModule, linear: fx.Node, weight: fx.Node) -> None:
    """Replace `linear` by `x @ weight + bias`, with the ranges of `x` taken at run time where its quantizer does."""
    graph, x = graph_module.graph, operands(linear)[0]
    rounds = quantizer_at(graph_module, x)
    with graph.inserting_before(linear):
        if rounds is not None and rounds.spec.dynamic and not rounds.spec.block:
            product = graph.call_function(OPS.dynamic_matmul.default, (operands(x)[0], *operands(weight)[:3]))
        else:
            product = graph.call_function(ATEN.matmul.default, (x, weight))
        if len(operands(linear)) > 2 and operands(linear)[2] is not None:
            product = graph.call_function(ATEN.add.Tensor, (product, operands(linear)[2]))
    product.meta["val"] = linear.meta["val"]
    linear.replace_all_uses_with(product)
    graph.erase_node(linear)
    if not weight.users:
        graph.erase_node(weight)


def _lower_activation(graph_module: fx.GraphModule, node: fx.Node, quantizer: FakeQuantize) -> None:
    """Replace a rounded activation by a quantization and a dequantization on buffers that its grid's uses share."""
    if quantizer.spec.block:
        node.replace_all_uses_with(operands(node)[0])  # The kernel does it.
    if not node.users:
        graph_module.graph.erase_node(node)
        return
    spec, name = quantizer.spec, str(node.target).removeprefix(f"{QUANTIZERS}.")
    step, zero = quantizer.grid()
    graph = graph_module.graph
    with graph.inserting_before(node):
        scale = hold_tensor(graph_module, f"{name}_step", step)
        origin = hold_tensor(graph_module, f"{name}_zero", zero.to(spec.dtype))
        codes = graph.call_function(
            OPS.quantize.default, (operands(node)[0], scale, origin, spec.qmin, spec.qmax)
        )
        value = graph.call_function(OPS.dequantize.default, (codes, scale, origin, -1, 0, 8))
    node.replace_all_uses_with(value)
    graph.erase_node(node)


def translations() -> dict[Any, Callable[..., Any]]:
    """Return the ONNX function of each operator that a lowered module may hold."""
    import onnx_ir as ir
    from onnxscript import opset21

    op: Any = opset21  # Its annotations do not know that a traced call always gives a value.
    FLOAT, INT4, UINT4 = (int(kind) for kind in (ir.DataType.FLOAT, ir.DataType.INT4, ir.DataType.UINT4))

    def quantize(x, step, zero, qmin: int, qmax: int):
        del qmin, qmax  # The whole range of the type, which QuantizeLinear saturates to.
        return op.QuantizeLinear(x, step, zero)

    def dequantize(codes, step, zero, axis: int, block: int, bits: int):
        if bits == 4:
            kind = UINT4 if zero.dtype == ir.DataType.UINT8 else INT4
            codes, zero = op.Cast(codes, to=kind), op.Cast(zero, to=kind)
        if axis < 0:
            return op.DequantizeLinear(codes, step, zero)
        return op.DequantizeLinear(codes, step, zero, axis=axis, block_size=block)

    def global_average_pool(x):
        return op.GlobalAveragePool(x)

    def dynamic_matmul(x, codes, step, zero):
        x_codes, x_step, x_zero = op.DynamicQuantizeLinear(x)
        sums = op.Cast(op.MatMulInteger(x_codes, codes, x_zero, zero), to=FLOAT)
        return op.Mul(sums, op.Mul(x_step, step))

    return {
        OPS.quantize.default: quantize,
        OPS.dequantize.default: dequantize,
        OPS.global_average_pool.default: global_average_pool,
        OPS.dynamic_matmul.default: dynamic_matmul,
    }
