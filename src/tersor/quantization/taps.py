"""Read intermediate values of a graph: a shorter graph that computes only what leads to them."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from tersor.loading.inputs import Inputs
from tersor.quantization.capture import ARGUMENTS


@torch.no_grad()
def values(graph_module: fx.GraphModule, names: Sequence[str], batches: Sequence[Inputs]) -> list[Tensor]:
    """Return the values of the nodes called `names` on all `batches`, joined along the batch axis.

    Example:
        >>> from tersor.quantization.capture import capture
        >>> graph = capture(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Tanh()), (torch.randn(2, 3),))
        >>> values(graph, ["relu"], [(torch.tensor([[-1.0, 2.0, 0.0]]),)])[0]
        tensor([[0., 2., 0.]])
    """
    shorter = _cut(graph_module, names)
    parts = [shorter(*leaves(graph_module, batch)) for batch in batches]
    return [torch.cat([part[i] for part in parts]) for i in range(len(names))]


def leaves(graph_module: fx.GraphModule, inputs: Inputs) -> list[object]:
    """Return `inputs` in the order of the placeholders of a captured graph."""
    if isinstance(inputs, dict):
        inputs = tuple(inputs[name] for name in graph_module.meta[ARGUMENTS])
    return pytree.tree_leaves(inputs)


def _cut(graph_module: fx.GraphModule, names: Sequence[str]) -> fx.GraphModule:
    by_name = {node.name: node for node in graph_module.graph.nodes}
    needed, stack = set[fx.Node](), [by_name[name] for name in names]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack += node.all_input_nodes
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph_module.graph.nodes:
        if node in needed or node.op == "placeholder":
            copies[node] = graph.node_copy(node, lambda n: copies[n])
    graph.output(tuple(copies[by_name[name]] for name in names))
    return fx.GraphModule(graph_module, graph)
