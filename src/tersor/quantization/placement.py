"""Which edges of a graph carry integers: one placement profile per runtime, as data, and the rule that reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import fx

from tersor.quantization.capture import operands
from tersor.quantization.operators import OPS
from tersor.quantization.tables import tables

ATEN = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Placement:
    """What a runtime computes in integers.

    A tensor is *resident* when it lives in memory as codes. Residency starts at a `closed` kernel (codes in, codes
    out), flows through `followers`, `carriers` and `activations`, and ends anywhere else.

    Attributes:
        closed: weighted kernels whose result is codes.
        open: weighted kernels whose result may be floating point.
        followers: operations that run on codes when one of their tensors is resident.
        carriers: operations that move or compare codes, so that input and output share one grid.
        activations: operations that the grid of their result absorbs, when they alone follow a kernel.
        sums: additions done inside the closed kernel that they alone follow, before its result is rounded.
        scores: products of two activations that run in integers where a softmax reads the result, as in attention.
    """

    closed: frozenset[Any]
    open: frozenset[Any]
    followers: frozenset[Any]
    carriers: frozenset[Any]
    activations: frozenset[Any]
    sums: frozenset[Any] = frozenset()
    scores: frozenset[Any] = frozenset()

    @property
    def weighted(self) -> frozenset[Any]:
        """Kernels that have a weight."""
        return self.closed | self.open


_CONVOLUTIONS = frozenset({ATEN.conv1d.default, ATEN.conv2d.default, ATEN.conv3d.default})
_CARRIERS = frozenset(
    {
        ATEN.max_pool1d.default, ATEN.max_pool2d.default, ATEN.view.default, ATEN.reshape.default,
        ATEN.flatten.using_ints, ATEN.permute.default, ATEN.transpose.int, ATEN.squeeze.dim, ATEN.squeeze.dims,
        ATEN.unsqueeze.default, ATEN.cat.default, ATEN.slice.Tensor, ATEN.upsample_nearest2d.vec,
    }
)  # fmt: skip
#: What stands between a product and the softmax of its result: scales, masks, and moves.
_BEFORE_SOFTMAX = frozenset(
    {
        ATEN.add.Tensor, ATEN.sub.Tensor, ATEN.mul.Tensor, ATEN.mul.Scalar, ATEN.div.Tensor, ATEN.div.Scalar,
        ATEN.masked_fill.Scalar, ATEN.masked_fill.Tensor, ATEN.where.self, ATEN.where.ScalarSelf,
        ATEN.where.ScalarOther, ATEN.view.default, ATEN.reshape.default, ATEN.unsqueeze.default,
        ATEN.squeeze.dim, ATEN.expand.default, ATEN.to.dtype, ATEN._to_copy.default,
    }
)  # fmt: skip
_SOFTMAX = frozenset({ATEN.softmax.int, ATEN._softmax.default, ATEN._safe_softmax.default})

#: ONNX Runtime on a CPU: QLinearConv, QGemm, QLinearAdd, QLinearMul, QLinear*AveragePool, QLinearSigmoid,
#: QLinearLeakyRelu; MatMul with a floating-point result (MatMulIntegerToFloat). The products of attention stay in
#: floating point: in integers they would save 3 % of a transformer of 128 tokens and nothing at 24
#: (bench/results/quantization_attention.md).
ONNXRUNTIME_CPU = Placement(
    closed=_CONVOLUTIONS,
    open=frozenset({ATEN.linear.default}),
    followers=frozenset(
        {
            ATEN.add.Tensor, ATEN.mul.Tensor, ATEN.avg_pool2d.default, ATEN.sigmoid.default,
            ATEN.leaky_relu.default, OPS.global_average_pool.default,
        }
    ),
    carriers=_CARRIERS,
    activations=frozenset({ATEN.relu.default, ATEN.hardtanh.default, ATEN.relu6.default}),
)  # fmt: skip

#: OpenVINO on a CPU: as ONNX Runtime, except that a convolution adds the other operand to its sums and rounds once
#: (bench/results/quantization_fidelity.md), and that the product of queries and keys is faster in integers
#: (bench/results/quantization_attention.md). Shares and values stay in floating point, as in NNCF: rounding them as
#: well saves little more, up to a tenth by the same measurement, and what it costs in accuracy is not known.
OPENVINO_CPU = replace(
    ONNXRUNTIME_CPU,
    sums=frozenset({ATEN.add.Tensor}),
    scores=frozenset({ATEN.matmul.default, ATEN.bmm.default}),
)
#: ExecuTorch's XNNPACK, whose integer kernels all round what they give: with it, products too.
XNNPACK = Placement(
    closed=frozenset({ATEN.conv2d.default, ATEN.linear.default}),
    open=frozenset(),
    followers=frozenset({ATEN.add.Tensor, ATEN.mul.Tensor, OPS.global_average_pool.default}),
    carriers=_CARRIERS - {ATEN.max_pool1d.default, ATEN.upsample_nearest2d.vec},
    activations=ONNXRUNTIME_CPU.activations,
)
#: Layers whose ranges are taken at run time, or whose weights alone are integers: matrix products.
_LINEAR_ONLY = Placement(frozenset(), frozenset({ATEN.linear.default}), frozenset(), frozenset(), frozenset())
#: The profile of static schemes for each runtime that they can be made for.
STATIC = {"onnxruntime": ONNXRUNTIME_CPU, "openvino": OPENVINO_CPU, "executorch": XNNPACK}
#: Every layer that some scheme quantizes.
EVERY_LAYER = ONNXRUNTIME_CPU


@dataclass(frozen=True, slots=True)
class Layout:
    """Where quantizers go in one graph.

    Attributes:
        weighted: the kernels that run in integers, with their site names.
        integer: every node that reads codes.
        grids: for each node whose result is rounded, the node that names its grid; equal names share a grid.
        everywhere: nodes whose rounded result every reader sees, not only integer kernels.
        floats: sites that stay in floating point, with the reason.
        scores: products of two activations of which each is rounded for the product alone.
        tables: look-ups in tables that are held as codes, with their site names.
    """

    weighted: Mapping[fx.Node, str]
    integer: frozenset[fx.Node]
    grids: Mapping[fx.Node, fx.Node]
    everywhere: frozenset[fx.Node]
    floats: Mapping[str, str] = field(default_factory=dict)
    scores: tuple[fx.Node, ...] = ()
    tables: Mapping[fx.Node, str] = field(default_factory=dict)


def placement_for(kind: str, runtime: str) -> Placement:
    """Return what `runtime` computes in integers of a scheme of this kind."""
    return STATIC[runtime] if kind == "static" else _LINEAR_ONLY


def site_of(node: fx.Node) -> str:
    """Return the name of a site: the path of the layer that owns the weight, else the name of the operation."""
    weight = operands(node)[1] if len(operands(node)) > 1 else None
    if isinstance(weight, fx.Node) and weight.op == "get_attr":
        return str(weight.target).rpartition(".")[0] or node.name
    return node.name


def tensors_into(node: fx.Node) -> list[fx.Node]:
    """Return the activations that `node` reads; parameters are not among them."""
    read = operands(node)[:1] if _has_weight(node) else operands(node)
    flat: list[Any] = []
    for argument in read:
        flat += argument if isinstance(argument, list | tuple) else [argument]
    return [a for a in flat if isinstance(a, fx.Node) and a.op != "get_attr" and is_real(a)]


def _has_weight(node: fx.Node) -> bool:
    return node.target in _CONVOLUTIONS or node.target is ATEN.linear.default


def is_real(node: fx.Node) -> bool:
    """Whether the node's value is a floating-point tensor."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def candidates(graph: fx.Graph, placement: Placement, *, closed: bool = False) -> dict[fx.Node, str]:
    """Return the kernels of `placement` that have a weight of their own, by site name; closed ones only if asked."""
    kernels = placement.closed if closed else placement.weighted
    return {node: site_of(node) for node in graph.nodes if node.target in kernels and _owns_weight(node)}


def _owns_weight(node: fx.Node) -> bool:
    weight = operands(node)[1]
    return isinstance(weight, fx.Node) and weight.op == "get_attr"


def lay_out(graph: fx.Graph, placement: Placement, floats: Mapping[str, str]) -> Layout:
    """Decide the edges that carry integers.

    Args:
        graph: a functional ATen graph.
        placement: what the runtime computes in integers.
        floats: sites and operations that must stay in floating point, with the reason. A product of two activations
            stays there with the layers that make them.

    Returns:
        Where quantizers go.
    """
    weighted = {node: site for node, site in candidates(graph, placement).items() if site not in floats}
    closed = {node for node in weighted if node.target in placement.closed}
    resident, integer = _spread_residency(graph, placement, closed, floats)
    rounded = {node for node in resident if not _is_absorbed(node, placement)}
    integer |= {*weighted, *(node for node in rounded if node.target in placement.carriers)}
    read = {tensor for node in integer for tensor in tensors_into(node)}
    summed = _summed(integer, closed, placement)
    ordered = [node for node in graph.nodes if node in (rounded | read) - summed]
    everywhere = frozenset(rounded - summed)
    grids = _share(ordered, placement)
    scores = tuple(
        node
        for node in graph.nodes
        if _gives_scores(node, placement) and node.name not in floats and makers(node) <= weighted.keys()
    )
    held = {node: site for node, site in tables(graph).items() if site not in floats}
    return Layout(weighted, frozenset(integer), grids, everywhere, dict(floats), scores, held)


def makers(node: fx.Node) -> set[fx.Node]:
    """Return the layers with weights that `node` is computed from without another such layer in between."""
    return {source for source in _sources(node) if _has_weight(source)}


def _gives_scores(node: fx.Node, placement: Placement) -> bool:
    """Whether `node` multiplies two activations and a softmax reads the result."""
    if node.target not in placement.scores or not all(_is_activation(side) for side in operands(node)[:2]):
        return False
    seen, left = set[fx.Node](), [node]
    while left:
        readers = [reader for reader in left.pop().users if reader not in seen]
        if any(reader.target in _SOFTMAX for reader in readers):
            return True
        seen.update(readers)
        left += [reader for reader in readers if reader.target in _BEFORE_SOFTMAX]
    return False


def _is_activation(node: fx.Node) -> bool:
    """Whether the inputs of the model decide the value of `node`."""
    ends = {node, *_sources(node)}
    return is_real(node) and any(end.op == "placeholder" or _has_weight(end) for end in ends)


def _sources(node: fx.Node) -> set[fx.Node]:
    """Return everything that `node` is computed from, up to layers with weights."""
    seen, left = set[fx.Node](), list(node.all_input_nodes)
    while left:
        source = left.pop()
        if source not in seen:
            seen.add(source)
            left += () if _has_weight(source) else source.all_input_nodes
    return seen


def _summed(integer: set[fx.Node], closed: set[fx.Node], placement: Placement) -> set[fx.Node]:
    """Return the kernels that do the addition that alone reads them; of the two of one addition, the first."""
    found = set[fx.Node]()
    for node in integer:
        if node.target in placement.sums:
            alone = (source for source in tensors_into(node) if source in closed and len(source.users) == 1)
            found.update(islice(alone, 1))
    return found


def _spread_residency(
    graph: fx.Graph, placement: Placement, closed: set[fx.Node], floats: Mapping[str, str]
) -> tuple[set[fx.Node], set[fx.Node]]:
    """Return the resident nodes, and those among them that compute on codes without a weight."""
    resident, integer = set(closed), set[fx.Node]()
    for node in graph.nodes:
        if node.op != "call_function" or not is_real(node) or node.name in floats:
            continue
        sources = tensors_into(node)
        if not any(source in resident for source in sources):
            continue
        if node.target in placement.followers and _runs_on_codes(node, sources):
            resident.add(node)
            integer.add(node)
        elif node.target in placement.carriers | placement.activations:
            resident.add(node)
    return resident, integer


def _runs_on_codes(node: fx.Node, sources: list[fx.Node]) -> bool:
    """Whether a follower has the form that an integer kernel exists for."""
    if node.target in (ATEN.add.Tensor, ATEN.mul.Tensor):
        return len(sources) == 2 and not node.kwargs
    return True


def _is_absorbed(node: fx.Node, placement: Placement) -> bool:
    """Whether an activation alone reads the kernel `node`, so that the activation's grid stands for both."""
    readers = list(node.users)
    computes = node.target in placement.weighted | placement.followers
    return computes and len(readers) == 1 and readers[0].target in placement.activations


def _share(rounded: list[fx.Node], placement: Placement) -> dict[fx.Node, fx.Node]:
    """Join the grids of the inputs and outputs of carriers."""
    leader = {node: node for node in rounded}

    def find(node: fx.Node) -> fx.Node:
        while leader[node] is not node:
            node = leader[node]
        return node

    carriers = [node for node in rounded if node.target in placement.carriers]
    for node, source in [(carrier, source) for carrier in carriers for source in tensors_into(carrier)]:
        if source in leader:
            leader[find(node)] = find(source)
    return {node: find(node) for node in rounded}
