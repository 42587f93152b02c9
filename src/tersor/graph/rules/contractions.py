"""Sums of products: matrix products, attention, and products per segment."""

from torch import Tensor

from tersor.graph.cells import Axis
from tersor.graph.labels import Call, Labels
from tersor.graph.rules.registry import rule

MEETS = "is multiplied with an axis that cannot change"


def _product(labels: Labels, call: Call, first: str, second: str) -> None:
    a, b, out = call[first], call[second], call.out
    labels.contract(labels.of(a)[-1], labels.of(b)[-2 if b.dim() > 1 else -1], MEETS)
    if a.dim() == 3:
        labels.unify(labels.of(a)[0], labels.of(b)[0], "is a batch of products")
    left, right = labels.of(a), labels.of(b)
    axes = left[:-1] + ([right[-1]] if b.dim() > 1 else [])
    labels.put(out, axes)
    added = call.get("self")
    if added is not None and added is not a:
        labels.put(out, labels.broadcast([out, added], out, MEETS))


@rule("mm", "bmm", "addmm", "baddbmm", "addmv", "_addmm_activation")
def matrix_product(labels: Labels, call: Call) -> None:
    """Unify the contracted axes and the batch axes; keep the rest."""
    names = list(call.args)
    if call.name in ("mm", "bmm"):
        _product(labels, call, "self", "mat2")
    elif call.name == "addmv":
        _product(labels, call, "mat", "vec")
    else:
        _product(labels, call, names[1], names[2])


@rule("mv", "dot", "vdot")
def vector_product(labels: Labels, call: Call) -> None:
    """Unify the contracted axis."""
    first, second = call.tensors[:2]
    labels.contract(labels.of(first)[-1], labels.of(second)[0], MEETS)
    labels.put(call.out, labels.of(first)[:-1])


@rule("linear")
def linear(labels: Labels, call: Call) -> None:
    """Unify the last axis with the columns of the weight; the rows come out."""
    source, weight, bias = call["input"], call["weight"], call["bias"]
    labels.contract(labels.of(source)[-1], labels.of(weight)[1], MEETS)
    if bias is not None:
        labels.unify(labels.of(weight)[0], labels.of(bias)[0], "meets a bias that cannot change")
    labels.put(call.out, [*labels.of(source)[:-1], labels.of(weight)[0]])


@rule("_grouped_mm", "_scaled_grouped_mm")
def grouped_product(labels: Labels, call: Call) -> None:
    """Products per segment of rows with a stack of matrices: the stack cannot change."""
    a, b = call["self"], call["mat2"]
    if a.dim() != 2 or b.dim() != 3:
        labels.give_up(call)
        return
    labels.contract(labels.of(a)[1], labels.of(b)[1], MEETS)
    labels.freeze(labels.of(b)[0], "is the number of experts")
    labels.freeze(labels.of(a)[0], "is the rows of experts")
    if call.get("bias") is not None:
        labels.freeze_tensor(call["bias"], "is the bias of experts")
    labels.put(call.out, [[], labels.of(b)[2]])


@rule(
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math_for_mps", "scaled_dot_product_attention",
)  # fmt: skip
def attention(labels: Labels, call: Call) -> None:
    """Heads unify, features of queries and keys unify, features of values come out."""
    query, key, value = call["query"], call["key"], call["value"]
    labels.contract(labels.of(query)[-1], labels.of(key)[-1], MEETS)
    if call.get("scale") is None:
        labels.freeze(labels.of(query)[-1], "its size is the default scale of the attention")
    for axis in range(query.dim() - 2):
        _share(labels, query, key, axis)
        _share(labels, query, value, axis)
    for axis in (labels.of(key)[-2], labels.of(value)[-2], labels.of(query)[-2]):
        labels.freeze(axis, "is the tokens of an attention")
    mask = call.get("attn_bias") if "attn_bias" in call.args else call.get("attn_mask")
    axes = [*labels.of(query)[:-1], labels.of(value)[-1]]
    if isinstance(mask, Tensor):
        _mask(labels, mask, axes[:-2])
    for i, out in enumerate(call.outputs):
        labels.put(out, axes) if i == 0 else labels.put_fixed(out)


def _share(labels: Labels, query: Tensor, other: Tensor, axis: int) -> None:
    """Unify one axis of heads; where several heads of queries in a row share one of keys, go by kv groups."""
    heads, shared = int(query.shape[axis]), int(other.shape[axis])
    own = labels.of(query)[axis]
    if heads != shared and shared > 1:
        own, inside = labels.reshape([own], [heads], [shared, heads // shared])
        labels.mark(inside, "heads per kv group")
    if heads == shared or shared > 1:
        labels.unify(own, labels.of(other)[axis], "is a batch of attention")


def _mask(labels: Labels, mask: Tensor, batch: list[Axis]) -> None:
    own = labels.of(mask)
    for back in range(1, min(len(batch), len(own) - 2) + 1):
        if mask.shape[-2 - back] != 1:
            labels.unify(own[-2 - back], batch[-back], "meets a mask that cannot change")
    for axis in own[-2:]:
        labels.freeze(axis, "is the tokens of an attention")


@rule(
    "linalg_solve_triangular",
    "linalg_solve",
    "linalg_inv",
    "linalg_cholesky",
    "linalg_solve_ex",
    "_linalg_solve_ex",
    "linalg_inv_ex",
    "linalg_cholesky_ex",
)
def solve(labels: Labels, call: Call) -> None:
    """Freeze the two axes of the matrix; columns of the right side and batch axes pass."""
    matrix, right = call.tensors[0], call.tensors[-1]
    for axis in (*labels.of(matrix)[-2:], labels.of(right)[-2]):
        labels.freeze(axis, "is solved for")
    for axis in range(matrix.dim() - 2):
        alike = right.dim() == matrix.dim() and right.shape[axis] == matrix.shape[axis]
        labels.unify(labels.of(matrix)[axis], labels.of(right)[axis] if alike else [], "is solved for")
    first, *others = call.outputs
    columns = [] if right is matrix else labels.of(right)[-1]
    labels.put(first, [*labels.of(right)[: first.dim() - 2], [], columns])
    for out in others:
        labels.put(
            out,
            [*labels.of(matrix)[: out.dim()], *([] for _ in range(out.dim() - matrix.dim()))][: out.dim()],
        )
