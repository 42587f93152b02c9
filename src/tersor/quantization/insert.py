"""Insert fake quantizers into a graph where a layout says so."""

from collections.abc import Callable, Mapping

import torch
from torch import fx, nn

from tersor.quantization.capture import get_tensor, operands
from tersor.quantization.fake_quantize import FakeQuantize, FakeQuantizeBias
from tersor.quantization.grid import QSpec
from tersor.quantization.placement import Layout
from tersor.quantization.tables import FakeQuantizeTable

#: Name under which a graph keeps its quantizers.
QUANTIZERS = "quantizers"


def insert(
    graph_module: fx.GraphModule,
    layout: Layout,
    *,
    activation: QSpec | None,
    weights: Mapping[str, QSpec],
    scores: QSpec | None = None,
) -> None:
    """Insert one FakeQuantize per grid of `layout` and per weight into `graph_module`.

    Args:
        graph_module: the graph; changed in place.
        layout: where integers go.
        activation: codes of activations; None leaves activations in floating point.
        weights: codes of the weight of each site.
        scores: codes of both sides of the products of two activations; None leaves those in floating point.
    """
    quantizers = nn.ModuleDict()
    graph_module.add_module(QUANTIZERS, quantizers)
    for node, site in layout.weighted.items():
        weight = operands(node)[1]
        assert isinstance(weight, fx.Node)
        name = f"{weight.name}_codes"
        if name not in quantizers:
            quantizers[name] = FakeQuantize(weights[site])
            _round_for(graph_module.graph, weight, name, lambda reader: reader in layout.weighted)
    if activation is not None:
        _round_activations(graph_module, layout, activation)
    if scores is not None:
        _round_scores(graph_module, layout, scores)
    for node in layout.weighted:
        _round_bias(graph_module, node)
    for node in layout.tables:
        _round_rows(graph_module, node)
    graph_module.graph.lint()
    graph_module.recompile()


def _round_activations(graph_module: fx.GraphModule, layout: Layout, spec: QSpec) -> None:
    quantizers = graph_module.get_submodule(QUANTIZERS)
    for node, leader in layout.grids.items():
        if leader.name not in dict(quantizers.named_children()):
            quantizers.add_module(leader.name, FakeQuantize(spec))
        everyone = node in layout.everywhere
        reads = lambda reader, everyone=everyone: everyone or reader in layout.integer
        _round_for(graph_module.graph, node, leader.name, reads)


def _round_scores(graph_module: fx.GraphModule, layout: Layout, spec: QSpec) -> None:
    quantizers = graph_module.get_submodule(QUANTIZERS)
    for product in layout.scores:
        for place, side in enumerate(("left", "right")):
            name, operand = f"{product.name}_{side}", operands(product)[place]
            quantizers.add_module(name, FakeQuantize(spec))
            with graph_module.graph.inserting_before(product):
                rounded = graph_module.graph.call_module(f"{QUANTIZERS}.{name}", (operand,))
            rounded.meta["val"] = operand.meta["val"]
            product.update_arg(place, rounded)


def _round_for(graph: fx.Graph, node: fx.Node, name: str, reads: Callable[[fx.Node], bool]) -> None:
    """Let the readers of `node` that `reads` accepts see its rounded value."""
    readers = [user for user in node.users if reads(user) and user.target != f"{QUANTIZERS}.{name}"]
    if not readers:
        return
    with graph.inserting_before(min(readers)):
        rounded = graph.call_module(f"{QUANTIZERS}.{name}", (node,))
    rounded.meta["val"] = node.meta.get("val")
    for reader in readers:
        reader.replace_input_with(node, rounded)


def _round_bias(graph_module: fx.GraphModule, layer: fx.Node) -> None:
    """Put the bias of `layer` on the grid of its sums, where the runtime adds it to them."""
    bias = operands(layer)[2] if len(operands(layer)) > 2 else None
    adds_later = layer.target is torch.ops.aten.linear.default and layer.meta["val"].dim() != 2
    if not isinstance(bias, fx.Node) or bias.op != "get_attr" or adds_later:
        return
    modules = dict(_calls(graph_module))
    inputs, weights = (modules.get(argument) for argument in operands(layer)[:2])
    if not isinstance(inputs, FakeQuantize) or not isinstance(weights, FakeQuantize) or inputs.spec.dynamic:
        return
    name = f"{layer.name}_bias"
    graph_module.get_submodule(QUANTIZERS).add_module(name, FakeQuantizeBias(inputs, weights))
    with graph_module.graph.inserting_before(layer):
        rounded = graph_module.graph.call_module(f"{QUANTIZERS}.{name}", (bias,))
    rounded.meta["val"] = bias.meta.get("val")
    layer.replace_input_with(bias, rounded)


def _round_rows(graph_module: fx.GraphModule, lookup: fx.Node) -> None:
    """Let a look-up in a table round the rows that it takes; it keeps its name, by which graphs are compared."""
    table, indices = operands(lookup)[:2]
    name = f"{lookup.name}_rows"
    rounded = FakeQuantizeTable(get_tensor(graph_module, str(table.target)))
    graph_module.get_submodule(QUANTIZERS).add_module(name, rounded)
    lookup.op, lookup.target = "call_module", f"{QUANTIZERS}.{name}"
    lookup.args, lookup.kwargs = (table, indices), {}


def bias_calls(graph_module: fx.GraphModule) -> list[tuple[fx.Node, FakeQuantizeBias]]:
    """Return the calls of bias quantizers in the order of the graph."""
    return [(node, module) for node, module in _calls(graph_module) if isinstance(module, FakeQuantizeBias)]


def quantizer_calls(graph_module: fx.GraphModule) -> list[tuple[fx.Node, FakeQuantize]]:
    """Return the calls of fake quantizers in the order of the graph."""
    return [(node, module) for node, module in _calls(graph_module) if isinstance(module, FakeQuantize)]


def table_calls(graph_module: fx.GraphModule) -> list[tuple[fx.Node, FakeQuantizeTable]]:
    """Return the look-ups in rounded tables in the order of the graph."""
    return [(node, module) for node, module in _calls(graph_module) if isinstance(module, FakeQuantizeTable)]


def _calls(graph_module: fx.GraphModule) -> list[tuple[fx.Node, nn.Module]]:
    nodes = [node for node in graph_module.graph.nodes if node.op == "call_module"]
    return [(node, graph_module.get_submodule(str(node.target))) for node in nodes]


def quantizer_at(graph_module: fx.GraphModule, node: fx.Node) -> FakeQuantize | None:
    """Return the quantizer that `node` calls; None if it calls none."""
    module = graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
    return module if isinstance(module, FakeQuantize) else None


def parameter_of(call: fx.Node) -> str | None:
    """Return the name of the parameter that a quantizer's call rounds; None if it rounds an activation."""
    source = operands(call)[0]
    return str(source.target) if isinstance(source, fx.Node) and source.op == "get_attr" else None
