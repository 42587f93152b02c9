"""Norms whose scale can move into the linear layers that read them."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from tersor.quantization.capture import get_tensor, operands
from tersor.quantization.layers import write

ATEN = torch.ops.aten


@dataclass(frozen=True, slots=True)
class NormGroup:
    """A norm with a weight and the linear layers that alone read it.

    Attributes:
        output: the norm's result.
        affine: names of the norm's weight and, if it has one, bias.
        linears: the layers that read it.
    """

    output: fx.Node
    affine: tuple[str, ...]
    linears: tuple[fx.Node, ...]


def norm_groups(graph: fx.Graph) -> list[NormGroup]:
    """Return every layer norm, and every product with a weight (as RMS norms end), that only linear layers read."""
    found = []
    for node in graph.nodes:
        affine = _affine(node)
        linears = tuple(node.users)
        if affine and linears and all(_reads(linear, node) for linear in linears):
            found.append(NormGroup(node, tuple(str(a.target) for a in affine), linears))
    return found


def _affine(node: fx.Node) -> list[fx.Node]:
    if node.target is ATEN.layer_norm.default:
        parameters = [argument for argument in operands(node)[2:4] if argument is not None]
        return parameters if all(_is_private(p) for p in parameters) else []
    if node.target is ATEN.mul.Tensor:
        width = node.meta["val"].shape[-1:]
        return [a for a in operands(node)[:2] if _is_private(a) and a.meta["val"].shape == width]
    return []


def _is_private(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr" and len(node.users) == 1


def _reads(linear: fx.Node, node: fx.Node) -> bool:
    return (
        linear.target is ATEN.linear.default
        and operands(linear)[0] is node
        and _is_private(operands(linear)[1])
    )


def weights_of(graph_module: fx.GraphModule, group: NormGroup) -> list[Tensor]:
    """Return the weights of the group's linear layers, detached."""
    return [get_tensor(graph_module, str(operands(linear)[1].target)).detach() for linear in group.linears]


@torch.no_grad()
def move_scale(graph_module: fx.GraphModule, group: NormGroup, scale: Tensor) -> None:
    """Divide the norm's result by `scale` per feature and multiply the weights that read it: the same function."""
    for name in group.affine:
        write(graph_module, name, get_tensor(graph_module, name) / scale)
    for linear, weight in zip(group.linears, weights_of(graph_module, group), strict=True):
        write(graph_module, str(operands(linear)[1].target), weight * scale)
