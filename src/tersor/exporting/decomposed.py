"""Lower fake quantizers to torch's own operators on codes, from which torch's back ends recognise integer kernels."""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from tersor.errors import ExportError
from tersor.exporting.codes_of_tables import hold_codes
from tersor.quantization.capture import get_tensor, hold_tensor, operands
from tersor.quantization.fake_quantize import FakeQuantize, FakeQuantizeBias
from tersor.quantization.insert import bias_calls, parameter_of, quantizer_at, quantizer_calls
from tersor.quantization.model import QuantizedModel
from tersor.quantization.operators import OPS
from tersor.quantization.placement import XNNPACK

#: What takes codes from 0 to 255 to the same values of a signed byte.
_SHIFT = 128


def decompose(model: QuantizedModel) -> nn.Module:
    """Return `model` with `torch.ops.quantized_decomposed` in place of its fake quantizers: the same grids, signed.

    Args:
        model: a model of static 8-bit integers.

    Returns:
        A module to capture; weights are codes, biases the values of their 32-bit codes.

    Raises:
        ExportError: if the model has other integers.

    Example:
        >>> from tersor.quantization.quantize import quantize
        >>> x = torch.randn(8, 4)
        >>> small = quantize(nn.Sequential(nn.Linear(4, 2)), (x[:2],), [(x,)], scheme="static")
        >>> torch.allclose(decompose(small)(x), small(x), atol=1e-6)
        True

    Source:
        https://docs.pytorch.org/ao/ (PT2E: the reference representation of quantized models)
    """
    # Importing it registers the operators.
    import torch.ao.quantization.fx._decomposed as _registered

    del _registered
    if model.scheme.kind != "static" or any(
        q.spec.storage_bits != 8 for _, q in quantizer_calls(model.graph_module)
    ):
        raise ExportError(
            f"ExecuTorch runs static 8-bit integers; the model has {model.scheme.kind} ones. Quantize it with "
            "scheme='static', or export it in floating point."
        )
    module = copy.deepcopy(model.graph_module).eval()
    for node, bias in bias_calls(module):
        _put_bias(module, node, bias)
    for node, quantizer in quantizer_calls(module):
        if parameter_of(node):
            _put_weight(module, node, quantizer)
    for node, quantizer in quantizer_calls(module):
        _put_activation(module, node, quantizer)
    hold_codes(module)
    for node in list(module.graph.nodes):
        if node.target is OPS.global_average_pool.default:
            _put_mean(module.graph, node)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module


@torch.no_grad()
def _put_bias(module: fx.GraphModule, node: fx.Node, quantizer: FakeQuantizeBias) -> None:
    value = quantizer(get_tensor(module, parameter_of(node) or ""))
    _replace(node, _held(module, node, "values", value))


@torch.no_grad()
def _put_weight(module: fx.GraphModule, node: fx.Node, quantizer: FakeQuantize) -> None:
    """Put codes and a dequantization in the place of a rounded weight; its values where no kernel takes codes."""
    spec, (step, zero) = quantizer.spec, quantizer.grid()
    weight = get_tensor(module, parameter_of(node) or "")
    if not all(_is_rounded(module, reader) for reader in node.users):
        _replace(node, _held(module, node, "values", quantizer(weight)))
        return
    stored = _held(module, node, "codes", quantizer.codes(weight).to(torch.int8))
    limits = (spec.qmin, spec.qmax, torch.int8)
    with module.graph.inserting_before(node):
        if spec.axis is None:
            place = (step.item(), int(zero.item()))
            value = module.graph.call_function(
                _ops().dequantize_per_tensor.default, (stored, *place, *limits)
            )
        else:
            steps = _held(module, node, "steps", step.flatten().float())
            zeros = _held(module, node, "zeros", zero.expand_as(step).flatten().to(torch.int64))
            place = (steps, zeros, spec.axis)
            value = module.graph.call_function(
                _ops().dequantize_per_channel.default, (stored, *place, *limits)
            )
    _replace(node, value)


def _is_rounded(module: fx.GraphModule, layer: fx.Node) -> bool:
    """Whether the result of `layer`, or of the activation that alone follows it, is rounded: such kernels exist."""
    readers = list(layer.users)
    if len(readers) == 1 and readers[0].target in XNNPACK.activations:
        readers = list(readers[0].users)
    return bool(readers) and all(quantizer_at(module, reader) for reader in readers)


def _put_activation(module: fx.GraphModule, node: fx.Node, quantizer: FakeQuantize) -> None:
    """Put a quantization, and a dequantization for each reader, in the place of a rounded activation.

    Kernels are found by what stands around an operation; a dequantization that two of them share joins them.
    """
    spec, (step, zero) = quantizer.spec, quantizer.grid()
    shift = 0 if spec.signed else _SHIFT
    grid = (step.item(), int(zero.item()) - shift, spec.qmin - shift, spec.qmax - shift, torch.int8)
    with module.graph.inserting_before(node):
        codes = module.graph.call_function(_ops().quantize_per_tensor.default, (operands(node)[0], *grid))
    for reader in list(node.users):
        with module.graph.inserting_before(reader):
            value = module.graph.call_function(_ops().dequantize_per_tensor.default, (codes, *grid))
        value.meta["val"] = node.meta.get("val")
        reader.replace_input_with(node, value)
    module.graph.erase_node(node)


def _put_mean(graph: fx.Graph, node: fx.Node) -> None:
    with graph.inserting_before(node):
        axes = list(range(2, node.meta["val"].dim()))
        mean = graph.call_function(torch.ops.aten.mean.dim, (operands(node)[0], axes, True))
    _replace(node, mean)


def _replace(node: fx.Node, value: fx.Node) -> None:
    value.meta["val"] = node.meta.get("val")
    node.replace_all_uses_with(value)
    node.graph.erase_node(node)


def _held(module: fx.GraphModule, node: fx.Node, part: str, value: Tensor) -> fx.Node:
    with module.graph.inserting_before(node):
        return hold_tensor(module, f"{node.name}_{part}", value)


def _ops() -> Any:
    return torch.ops.quantized_decomposed
