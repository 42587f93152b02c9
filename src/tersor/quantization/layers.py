"""The quantized layers of a graph, one by one: what goes in, what should come out, and its weight."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from tersor.quantization.capture import get_tensor, operands
from tersor.quantization.fake_quantize import FakeQuantize
from tersor.quantization.insert import parameter_of, quantizer_calls


@dataclass(frozen=True, slots=True)
class Layer:
    """One call of a layer whose weight is rounded.

    Attributes:
        node: the call.
        weight: name of the weight.
        bias: name of the bias, or None.
        quantizer: what rounds the weight.
    """

    node: fx.Node
    weight: str
    bias: str | None
    quantizer: FakeQuantize

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the layer computes from `x` with these parameters."""
        assert callable(self.node.target)
        return self.node.target(x, weight, bias, *operands(self.node)[3:])


def layers(graph_module: fx.GraphModule) -> list[Layer]:
    """Return the layers with rounded weights in the order of execution, each weight once."""
    found: dict[str, Layer] = {}
    for call, quantizer in quantizer_calls(graph_module):
        name = parameter_of(call)
        reader = min(call.users) if name else None
        if name and reader is not None and name not in found:
            found[name] = Layer(reader, name, _bias_name(reader), quantizer)
    return sorted(found.values(), key=lambda layer: layer.node)


def _bias_name(node: fx.Node) -> str | None:
    bias = operands(node)[2] if len(operands(node)) > 2 else None
    if bias is None:
        return None
    return str(bias.target) if bias.op == "get_attr" else parameter_of(bias)


def parameter(root: nn.Module, name: str | None) -> Tensor | None:
    """Return a parameter by name, detached."""
    return None if name is None else get_tensor(root, name).detach()


@torch.no_grad()
def write(root: nn.Module, name: str, value: Tensor) -> None:
    """Overwrite the parameter `name`."""
    get_tensor(root, name).copy_(value)
