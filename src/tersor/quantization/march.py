"""Walk through a quantized graph and its reference together, layer by layer, each operation once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from tersor.loading.inputs import Inputs
from tersor.quantization.layers import Layer, layers
from tersor.quantization.taps import leaves

#: Called at each layer with its input in the quantized graph and its output in the reference.
Visit = Callable[[Layer, Tensor, Tensor], None]


@torch.no_grad()
def march(
    graph_module: fx.GraphModule, reference: fx.GraphModule, batches: Sequence[Inputs], visit: Visit
) -> None:
    """Run both graphs on `batches` and stop at every layer; `visit` may change the layer's parameters.

    What comes after a layer sees what `visit` made of it. Memory: the live tensors of both graphs.
    """
    by_node = {layer.node: layer for layer in layers(graph_module)}
    twins = {node.name: node for node in reference.graph.nodes}
    ours = [_start(graph_module, batch) for batch in batches]
    theirs = [_start(reference, batch) for batch in batches]
    for node in graph_module.graph.nodes:
        twin = twins.get(node.name)
        if node.op == "output":
            break
        if twin is not None:
            _step(theirs, twin)
        if (layer := by_node.get(node)) is not None and twin is not None:
            x = torch.cat([run.env[node.all_input_nodes[0]] for run in ours])
            visit(layer, x, torch.cat([run.env[twin] for run in theirs]))
            for parameter in node.all_input_nodes[1:]:
                _read_again(ours, parameter)
        _step(ours, node)


def _start(graph_module: fx.GraphModule, batch: Inputs) -> fx.Interpreter:
    run = fx.Interpreter(graph_module)
    run.args_iter = iter(leaves(graph_module, batch))
    return run


def _step(runs: Sequence[fx.Interpreter], node: fx.Node, *, last: bool = True) -> None:
    for run in runs:
        run.env[node] = run.run_node(node)
    if last:
        _forget(runs, node)


def _read_again(runs: Sequence[fx.Interpreter], node: fx.Node) -> None:
    """Recompute a parameter, and its rounding if `node` rounds it."""
    for parameter in (*node.all_input_nodes, node):
        _step(runs, parameter, last=False)


def _forget(runs: Sequence[fx.Interpreter], node: fx.Node) -> None:
    """Drop the values that nothing after `node` reads."""
    for run in runs:
        for spent in run.user_to_last_uses.get(node, []):
            run.env.pop(spent, None)
