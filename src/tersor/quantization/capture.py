"""A model as a functional graph of ATen operations, with its batch axis free and its batch norms folded."""

import copy
import operator
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from tersor.errors import ModelError
from tersor.loading.inputs import Inputs, as_inputs, batch_size, flatten, map_tensors
from tersor.quantization.operators import OPS

ATEN = torch.ops.aten
#: Key of a captured graph's `meta` with the names of its arguments, empty when they are positional.
ARGUMENTS = "argument_names"


def capture(model: nn.Module, inputs: Inputs) -> fx.GraphModule:
    """Return `model` in evaluation mode as a graph with the same parameters, names and call signature.

    `torch.export` runs strict first, then non-strict. Dropout is gone, in-place
    operations are replaced by functional ones, and batch norms that follow a
    convolution or a linear layer are folded into it. Parameters are copies.

    Args:
        model: any model that `torch.export` accepts.
        inputs: example inputs; the batch axis of each tensor is left free, and so is the second axis of integer
            tensors (the length of a sequence) where the model allows it.

    Returns:
        The graph.

    Raises:
        ModelError: if no variant of `torch.export` accepts the model.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        >>> graph = capture(model, (torch.randn(2, 3, 5, 5),))
        >>> [n.target.__name__ for n in graph.graph.nodes if n.op == "call_function"]
        ['conv2d.default', 'relu.default']
    """
    inputs = as_inputs(inputs)
    program = _export(copy.deepcopy(model).eval(), inputs)
    exported = program.run_decompositions({}).module(check_guards=False)
    graph_module = fx.GraphModule(exported, exported.graph)
    _drop_noise(graph_module.graph)
    fold_batch_norm(graph_module)
    _name_linears(graph_module)
    _name_global_pools(graph_module.graph)
    # A new module takes over what the graph reads, and leaves the folded norms behind.
    captured = fx.GraphModule(graph_module, graph_module.graph)
    captured.meta[ARGUMENTS] = tuple(inputs) if isinstance(inputs, dict) else ()
    return captured


def _export(model: nn.Module, inputs: Inputs) -> Any:
    inputs = _at_least_two(inputs)
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    free = lambda value: _free_axes(value, batch_size(inputs))
    shapes = (
        {name: free(value) for name, value in inputs.items()}
        if isinstance(inputs, dict)
        else tuple(free(value) for value in inputs)
    )
    errors: list[str] = []
    for strict in (True, False):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=strict)
        except (
            Exception
        ) as error:  # torch.export raises anything that the user's forward or its compiler raises
            errors.append(
                f"{'strict' if strict else 'non-strict'}: {type(error).__name__}: {str(error)[:400]}"
            )
    raise ModelError(
        f"torch.export does not accept this {type(model).__name__}, so it cannot be quantized as a graph. "
        "Replace data-dependent control flow by tensor operations, or quantize its submodules.\n"
        + "\n".join(errors)
    )


def _free_axes(value: object, batch: int) -> dict[int, Any] | None:
    """Return the axes that may vary: the batch must; the length of token sequences may where the model allows it."""
    if not isinstance(value, Tensor) or not value.dim() or len(value) != batch:
        return None
    is_sequence = value.dim() > 1 and value.shape[1] > 1 and not value.is_floating_point()
    return {0: torch.export.Dim.DYNAMIC} | ({1: torch.export.Dim.AUTO} if is_sequence else {})


def _at_least_two(inputs: Inputs) -> Inputs:
    """Repeat a batch of one: the exporter takes an axis of length 1 for a constant."""
    if not flatten(inputs):
        raise ModelError("The example inputs hold no tensor; pass the tensors that the model is called with.")
    if batch_size(inputs) > 1:
        return inputs
    return map_tensors(
        lambda t: t.repeat(2, *([1] * (t.dim() - 1))) if t.dim() and len(t) == 1 else t, inputs
    )


#: What needs its argument in one piece, as the copies before it made it.
_VIEWS: tuple[Any, ...] = (ATEN.view.default, ATEN._unsafe_view.default)
_NOISE: tuple[Any, ...] = (ATEN._assert_tensor_metadata.default,)


def _drop_noise(graph: fx.Graph) -> None:
    """Erase copies (a functional graph needs none) and assertions about types."""
    for node in list(graph.nodes):
        if node.target in _NOISE:
            graph.erase_node(node)
        elif node.target is ATEN.clone.default:
            node.replace_all_uses_with(operands(node)[0])
            graph.erase_node(node)
        elif node.target in _VIEWS:
            node.target = ATEN.reshape.default
    graph.eliminate_dead_code()


def _name_linears(graph_module: fx.GraphModule) -> None:
    """Write every product with a weight of its own as a linear layer, whose weight is (outputs, inputs)."""
    for node in list(graph_module.graph.nodes):
        position = _PRODUCTS.get(node.target)
        if position is None or not _is_private(operands(node)[position + 1]) or node.kwargs:
            continue
        x, weight = operands(node)[position : position + 2]
        bias = operands(node)[0] if position else None
        value = get_tensor(graph_module, weight.target)
        if value.dim() != 2 or (bias is not None and bias.op != "get_attr"):
            continue
        set_parameter(graph_module, weight.target, value.t().contiguous())
        with graph_module.graph.inserting_before(node):
            linear = graph_module.graph.call_function(ATEN.linear.default, (x, weight, bias))
        linear.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(linear)
        graph_module.graph.erase_node(node)


#: Products, with the position of their left side.
_PRODUCTS: dict[Any, int] = {ATEN.matmul.default: 0, ATEN.mm.default: 0, ATEN.addmm.default: 1}


def _name_global_pools(graph: fx.Graph) -> None:
    """Write every mean over whole images as the one operation that runtimes have an integer kernel for."""
    for node in list(graph.nodes):
        if not _is_global_pool(node):
            continue
        with graph.inserting_before(node):
            pooled = graph.call_function(OPS.global_average_pool.default, (operands(node)[0],))
            pooled.meta["val"] = operands(node)[0].meta["val"].new_empty((*node.meta["val"].shape[:2], 1, 1))
            flat = node.meta["val"].dim() == 2
            result = graph.call_function(ATEN.squeeze.dims, (pooled, [2, 3])) if flat else pooled
        result.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(result)
        graph.erase_node(node)


def _is_global_pool(node: fx.Node) -> bool:
    if node.target is ATEN.adaptive_avg_pool2d.default:
        return list(operands(node)[1]) == [1, 1] and node.meta["val"].dim() == 4
    if node.target is not ATEN.mean.dim or node.kwargs or operands(node)[0].meta["val"].dim() != 4:
        return False
    return sorted(axis % 4 for axis in operands(node)[1]) == [2, 3]


def fold_batch_norm(graph_module: fx.GraphModule) -> None:
    """Fold every batch norm that alone follows a convolution or linear layer into its weight and bias, in place.

    `W' = W gamma / sqrt(var + eps)`, `b' = (b - mean) gamma / sqrt(var + eps) + beta`. A layer that is called
    twice, or whose weight is shared, keeps its batch norm.
    """
    for node in list(graph_module.graph.nodes):
        if node.target is ATEN._native_batch_norm_legit_no_training.default:
            _fold_one(graph_module, node)
    graph_module.graph.eliminate_dead_code()


_FOLDABLE: dict[Any, Callable[..., Any]] = {
    ATEN.conv1d.default: fuse_conv_bn_weights,
    ATEN.conv2d.default: fuse_conv_bn_weights,
    ATEN.conv3d.default: fuse_conv_bn_weights,
    ATEN.linear.default: fuse_linear_bn_weights,
}


def _fold_one(graph_module: fx.GraphModule, norm: fx.Node) -> None:
    layer = operands(norm)[0]
    taken = [user for user in norm.users if user.target is operator.getitem and operands(user)[1] == 0]
    if (
        not isinstance(layer, fx.Node)
        or layer.target not in _FOLDABLE
        or len(layer.users) > 1
        or len(taken) != 1
    ):
        return
    weight, bias = operands(layer)[1], operands(layer)[2] if len(operands(layer)) > 2 else None
    if not _is_private(weight) or not (bias is None or _is_private(bias)):
        return
    if layer.target is ATEN.linear.default and layer.meta["val"].dim() != 2:
        return
    gamma, beta, mean, var = (_tensor(graph_module, argument) for argument in operands(norm)[1:5])
    epsilon = operands(norm)[6]
    fused = _FOLDABLE[layer.target](
        _tensor(graph_module, weight), _tensor(graph_module, bias), mean, var, epsilon, gamma, beta
    )
    bias_name = bias.target if bias is not None else f"{weight.target.rpartition('.')[0]}.bias".lstrip(".")
    set_parameter(graph_module, weight.target, fused[0])
    set_parameter(graph_module, bias_name, fused[1])
    if bias is None:
        with graph_module.graph.inserting_before(layer):
            bias = graph_module.graph.get_attr(bias_name)
        layer.args = (*operands(layer)[:2], bias, *operands(layer)[3:])
    taken[0].replace_all_uses_with(layer)


def _is_private(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr" and len(node.users) == 1


def _tensor(graph_module: fx.GraphModule, node: Any) -> Tensor | None:
    return None if node is None else get_tensor(graph_module, node.target).detach()


def operands(node: fx.Node) -> tuple[Any, ...]:
    """Return the arguments of `node`: nodes, numbers, lists and None."""
    return node.args


def get_tensor(root: nn.Module, name: str) -> Tensor:
    """Return the parameter or buffer of `root` called `name`."""
    path, _, leaf = name.rpartition(".")
    return getattr(root.get_submodule(path), leaf)


def hold_tensor(graph_module: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """Register a copy of `value` as the buffer `name`, and return a node that reads it, where nodes are inserted."""
    graph_module.register_buffer(name, value.detach().clone())
    return graph_module.graph.get_attr(name)


def set_parameter(root: nn.Module, name: str, value: Tensor) -> None:
    """Register `value` as the parameter `name` of `root`, in place of what is there."""
    path, _, leaf = name.rpartition(".")
    owner = root.get_submodule(path)
    if leaf in owner._buffers:
        del owner._buffers[leaf]
    elif leaf in owner.__dict__:
        delattr(owner, leaf)
    owner.register_parameter(leaf, nn.Parameter(value.detach().clone()))
