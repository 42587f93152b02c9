"""Fused operations of attention, written out as the products, additions and softmax that they are made of."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

ATEN = torch.ops.aten


def write_out(graph_module: fx.GraphModule) -> None:
    """Write fused attention in a captured graph as products and a softmax, in place; the same function.

    What is left as it is: grouped queries (`enable_gqa`), dropout, and a scale that is not a number. Where a
    mask hides every key from a query, the query gets the mean of the values, as in a file; torch gives it zeros.

    Example:
        >>> from tersor.quantization.capture import capture
        >>> class Model(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.nn.functional.scaled_dot_product_attention(x, x, x)
        >>> graph_module = capture(Model(), (torch.randn(2, 3, 5, 8),))
        >>> write_out(graph_module)
        >>> [node.name for node in graph_module.graph.nodes if node.op == "call_function"]
        ['transpose', 'matmul', 'mul', 'softmax', 'matmul_1']
    """
    for node in list(graph_module.graph.nodes):
        if node.target in _WRITTEN:
            takes, function = _WRITTEN[node.target]
            if takes(*node.args, **node.kwargs):
                _replace(node, function)
    graph_module.recompile()


def _replace(node: fx.Node, function: Callable[..., Tensor]) -> None:
    """Put the operations of `function` in the place of `node`, with its arguments."""
    read = node.all_input_nodes

    def run(*values: Any) -> Tensor:
        by_node = dict(zip(read, values, strict=True))
        args, kwargs = map_arg((node.args, node.kwargs), by_node.__getitem__)
        return function(*args, **kwargs)

    traced = make_fx(run, pre_dispatch=True)(*(source.meta["val"] for source in read)).graph
    places = [inner for inner in traced.nodes if inner.op == "placeholder"]
    with node.graph.inserting_before(node):
        result = node.graph.graph_copy(traced, dict(zip(places, read, strict=True)))
    assert isinstance(result, fx.Node)
    node.replace_all_uses_with(result)
    node.graph.erase_node(node)


def _attends(query: fx.Node, *others: Any, scale: float | None = None, enable_gqa: bool = False) -> bool:
    """Whether `_attention` computes a call with these arguments; of the others, the fourth is the dropout."""
    factor = query.meta["val"].shape[-1] if scale is None else scale
    return not enable_gqa and not any(others[3:4]) and isinstance(factor, int | float)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    _dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    **_: bool,
) -> Tensor:
    """Return `softmax(s q k^T + mask) v`; what is hidden gets the least number, as in a file, not infinity."""
    # Scaled after the product, so that what makes queries and keys can round them.
    scores = torch.matmul(query, key.transpose(-2, -1)) * (
        query.shape[-1] ** -0.5 if scale is None else scale
    )
    least = torch.finfo(query.dtype).min
    if is_causal:
        scores = scores + query.new_full((query.shape[-2], key.shape[-2]), least).triu(1)
    elif mask is not None and mask.dtype == torch.bool:
        scores = scores + torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask.logical_not(), least)
    elif mask is not None:
        scores = scores + mask
    return torch.matmul(torch.softmax(scores, -1), value)


def _adds_plainly(*_: fx.Node, beta: float = 1, alpha: float = 1) -> bool:
    return beta == 1 and alpha == 1


def _product_and_sum(added: Tensor, left: Tensor, right: Tensor, **_: float) -> Tensor:
    """Return `left right + added`."""
    return torch.bmm(left, right) + added


#: Operation -> whether a call can be written out, and as what.
_WRITTEN: dict[Any, tuple[Callable[..., bool], Callable[..., Tensor]]] = {
    ATEN.scaled_dot_product_attention.default: (_attends, _attention),
    ATEN.baddbmm.default: (_adds_plainly, _product_and_sum),
}
