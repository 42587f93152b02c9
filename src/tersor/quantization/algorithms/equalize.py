"""Move scale between consecutive layers until their channels span equal ranges."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from tersor.loading.inputs import Inputs
from tersor.quantization.algorithms.registry import rescaling
from tersor.quantization.capture import get_tensor, operands
from tersor.quantization.grid import QSpec
from tersor.quantization.layers import write
from tersor.quantization.placement import EVERY_LAYER

ATEN = torch.ops.aten


@rescaling("equalize")
@dataclass(frozen=True, slots=True)
class Equalize:
    """Cross-layer equalization: `W1' = W1 / s`, `b1' = b1 / s`, `W2' = W2 s` with `s = sqrt(r1 r2) / r2`.

    `r1`, `r2` are the ranges of each output channel of the first and input channel of the second layer. Exact through
    ReLU, which commutes with positive factors.

    Attributes:
        rounds: passes over all pairs.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
    equations 8 to 11.
    """

    rounds: int = 3

    def __call__(self, graph_module: fx.GraphModule, batches: Sequence[Inputs], weight: QSpec) -> int:
        """Rescale every pair; return how many pairs there are."""
        del batches, weight
        found = pairs(graph_module.graph)
        for _ in range(self.rounds):
            for first, second in found:
                _equalize(graph_module, first, second)
        return len(found)


_PASSES = frozenset({ATEN.relu.default, ATEN.max_pool2d.default})


def pairs(graph: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """Return layers that alone feed one further layer, through nothing or through ReLU and max pooling."""
    found = []
    for node in graph.nodes:
        after = _only_reader(node) if _is_layer(node) else None
        while after is not None and after.target in _PASSES:
            after = _only_reader(after)
        if after is not None and _is_layer(after):
            found.append((node, after))
    return found


def _is_layer(node: fx.Node) -> bool:
    if node.target not in EVERY_LAYER.weighted:
        return False
    return all(argument.op == "get_attr" and len(argument.users) == 1 for argument in _parameters(node))


def _parameters(node: fx.Node) -> list[fx.Node]:
    return [argument for argument in operands(node)[1:3] if argument is not None]


def _only_reader(node: fx.Node) -> fx.Node | None:
    readers = list(node.users)
    return readers[0] if len(readers) == 1 else None


def _equalize(graph_module: fx.GraphModule, first: fx.Node, second: fx.Node) -> None:
    names = [str(argument.target) for argument in _parameters(first)]
    target = str(operands(second)[1].target)
    one, two = get_tensor(graph_module, names[0]).detach(), get_tensor(graph_module, target).detach()
    inputs = _by_input(two, len(one))
    if inputs is None:
        return
    r1, r2 = one.abs().flatten(1).amax(1), inputs.abs().flatten(1).amax(1)
    scale = torch.where((r1 > 0) & (r2 > 0), (r1 * r2).sqrt() / r2, torch.ones_like(r1))
    for name in names:
        value = get_tensor(graph_module, name).detach()
        write(graph_module, name, value / scale.reshape(-1, *[1] * (value.dim() - 1)))
    write(graph_module, target, _scale_inputs(two, scale))


def _by_input(weight: Tensor, channels: int) -> Tensor | None:
    """Return a weight with its input channels first; None if it has another number of them."""
    if weight.shape[1] == channels:
        return weight.transpose(0, 1)
    return weight if weight.shape[1] == 1 and len(weight) == channels else None


def _scale_inputs(weight: Tensor, scale: Tensor) -> Tensor:
    axis = 1 if weight.shape[1] == len(scale) else 0
    shape = [1] * weight.dim()
    shape[axis] = -1
    return weight * scale.reshape(shape)
