"""Norms and other tensors whose scale can move into the linear layers that read them."""

from dataclasses import dataclass

import torch
from torch import Tensor, fx

from tersor.quantization.capture import get_tensor, hold_tensor, operands
from tersor.quantization.layers import write

ATEN = torch.ops.aten


@dataclass(frozen=True, slots=True)
class NormGroup:
    """A norm with a weight and the linear layers that alone read it; or any tensor and the linear layers that read it.

    Attributes:
        output: the norm's result.
        affine: names of the norm's weight and, if it has one, bias; empty where nothing before the layers takes a
            scale.
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


def token_groups(graph: fx.Graph) -> list[NormGroup]:
    """Return every tensor over tokens that linear layers read, with the norm where it can take their scale."""
    norms = {group.output: group for group in norm_groups(graph)}
    found = []
    for node in graph.nodes:
        linears = tuple(user for user in node.users if _reads(user, node))
        if linears and node.meta["val"].dim() > 2:
            found.append(norms.get(node) or NormGroup(node, (), linears))
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
    """Divide what the group's layers read by `scale` per feature and multiply their weights: the same function."""
    for name in group.affine:
        write(graph_module, name, get_tensor(graph_module, name) / scale)
    for linear, weight in zip(group.linears, weights_of(graph_module, group), strict=True):
        write(graph_module, str(operands(linear)[1].target), weight * scale)
    if not group.affine:
        _divide(graph_module, group, scale)


def _divide(graph_module: fx.GraphModule, group: NormGroup, scale: Tensor) -> None:
    """Put a product with `1 / scale` between a tensor and the layers of its group."""
    graph, name = graph_module.graph, f"{group.output.name}_share"
    with graph.inserting_before(min(group.linears)):
        share = hold_tensor(graph_module, name, 1.0 / scale)
        product = graph.call_function(ATEN.mul.Tensor, (group.output, share))
    share.meta["val"], product.meta["val"] = get_tensor(graph_module, name), group.output.meta["val"]
    for linear in group.linears:
        linear.replace_input_with(group.output, product)
    graph_module.recompile()
