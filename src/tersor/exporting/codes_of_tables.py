"""Lower look-ups in rounded tables: codes and steps are taken by the same indices, and multiplied."""

import torch
from torch import fx

from tersor.quantization.capture import get_tensor, hold_tensor, operands
from tersor.quantization.insert import table_calls

ATEN = torch.ops.aten


@torch.no_grad()
def hold_codes(graph_module: fx.GraphModule) -> None:
    """Replace each rounded look-up by one of 8-bit codes and one of steps, in place: the same values, bit for bit.

    Args:
        graph_module: the graph of a quantized model.
    """
    graph = graph_module.graph
    for lookup, table in table_calls(graph_module):
        weight, indices = operands(lookup)
        codes = table.codes(get_tensor(graph_module, str(weight.target))).to(torch.int8)
        with graph.inserting_before(lookup):
            held = [
                hold_tensor(graph_module, f"{lookup.name}_{part}", tensor)
                for part, tensor in (("codes", codes), ("step", table.step))
            ]
            taken = [graph.call_function(ATEN.embedding.default, (tensor, indices)) for tensor in held]
            value = graph.call_function(ATEN.to.dtype, (taken[0], table.step.dtype))
            row = graph.call_function(ATEN.mul.Tensor, (value, taken[1]))
        row.meta["val"] = lookup.meta.get("val")
        lookup.replace_all_uses_with(row)
        graph.erase_node(lookup)
