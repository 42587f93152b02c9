"""Numbers that a graph computes from sizes, such as the scale of attention, become constants where they are constant.

A graph that divides by the root of a size of its own weights would divide by something else once it is pruned. Numbers
of the trained network must stay; only shapes may follow the sizes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx

from tersor.loading.onnx.agreement import examples, open_session

#: Two batches with no length in common.
_SHAPES = ((2, 24), (3, 20))


def settle_numbers(model: onnx.ModelProto, module: fx.GraphModule) -> None:
    """Replace in `module` every tensor made of sizes by its value, if that is the same for inputs of other lengths."""
    nodes = [
        node for node in module.graph.nodes if node.op == "call_function" and node.target is torch.tensor
    ]
    if not nodes:
        return
    session = open_session(model)
    first, second = (_values(module, examples(session, module, *shape)) for shape in _SHAPES)
    for number, node in enumerate(nodes):
        if node in first and node in second and torch.equal(first[node], second[node]):
            name = f"_number_{number}"
            module.register_buffer(name, first[node].clone())
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(module.graph.get_attr(name))
    module.graph.eliminate_dead_code()
    module.recompile()


class _Record(fx.Interpreter):
    """Runs a module and keeps the tensors that were made of sizes."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        made = super().run_node(n)
        if n.target is torch.tensor:
            self.found[n] = made
        return made


def _values(module: fx.GraphModule, arrays: list[np.ndarray]) -> Mapping[fx.Node, torch.Tensor]:
    record = _Record(module)
    try:
        with torch.no_grad():
            record.run(*map(torch.from_numpy, arrays))
    except Exception:  # other lengths may not fit, so nothing is known to be constant
        return {}
    return record.found
