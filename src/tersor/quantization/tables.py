"""Tables of embeddings in 8-bit codes, with a step to each row that is taken with it."""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from tersor.planning.anatomy import LEAST_TABLE, TABLE_BITS
from tersor.quantization.capture import get_tensor, operands
from tersor.quantization.fake_quantize import StraightThrough
from tersor.quantization.grid import QSpec, encode, place

ATEN = torch.ops.aten
#: The codes of a table, whatever those of layers are: rows are read, not multiplied, so that fewer bits save no time.
TABLE = QSpec(-127, 127, axis=0, symmetric=True, storage_bits=TABLE_BITS)


class FakeQuantizeTable(nn.Module):
    """Take rows of a table and round them to the codes that the file holds, bit for bit.

    Only the rows that are taken are rounded. The steps stay as they were placed: `step = max |row| / 127`.

    Attributes:
        step: distance between codes, shape (rows, 1).
        enabled: whether rows are rounded; only the measurement of sensitivity turns this off.
    """

    step: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        lowest, highest = table.detach().aminmax(dim=1, keepdim=True)
        self.register_buffer("step", place(lowest, highest, TABLE)[0])
        self.enabled = True

    def codes(self, table: Tensor) -> Tensor:
        """Return the codes of the whole table, as floats."""
        return encode(table, self.step, torch.zeros(()), TABLE.per_tensor())

    def forward(self, table: Tensor, indices: Tensor) -> Tensor:
        """Return the rows of `table` at `indices`, on their grids."""
        rows = F.embedding(indices, table)
        if not self.enabled:
            return rows
        step = F.embedding(indices, self.step)
        codes = encode(rows.detach(), step, torch.zeros_like(step), TABLE.per_tensor())
        return StraightThrough.apply(rows, codes * step)


def tables(graph: fx.Graph) -> dict[fx.Node, str]:
    """Return the look-ups in tables that are large enough for codes, by the path of the table's layer."""
    return {
        node: site_of_table(node)
        for node in graph.nodes
        if node.target is ATEN.embedding.default and _is_large(node)
    }


def site_of_table(node: fx.Node) -> str:
    """Return the name of a look-up's site: the path of the layer that owns the table."""
    return str(operands(node)[0].target).rpartition(".")[0] or node.name


def _is_large(node: fx.Node) -> bool:
    table: Any = operands(node)[0]
    if not isinstance(table, fx.Node) or table.op != "get_attr":
        return False
    owner = node.graph.owning_module
    return owner is not None and get_tensor(owner, str(table.target)).numel() >= LEAST_TABLE
