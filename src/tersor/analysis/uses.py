"""Which operations of a forward pass use which parameter, and along which axes.

The pass runs under a dispatch mode, so roles come from the operations that ran,
never from layer classes: a hand-written projection is seen like `nn.Linear`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import pad
from torch.utils._python_dispatch import TorchDispatchMode

from tersor.loading.inputs import Inputs, call, device_of, map_tensors

aten = torch.ops.aten

#: Matrix products, with the positions of their factors.
_PRODUCTS = {
    aten.mm.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten._addmm_activation.default: (1, 2),
    aten.bmm.default: (0, 1),
    aten.baddbmm.default: (1, 2),
}


#: Operations that add a bias of their own, with its position.
_BIAS_AT = {aten.addmm.default: 0, aten.convolution.default: 2, aten.linear.default: 2}


@dataclass(frozen=True, slots=True)
class Use:
    """One operation that multiplies data by a parameter.

    Attributes:
        parameter: name of the parameter in `model.state_dict()` terms.
        role: `contracts` (the parameter is a matrix of features by outputs), `scales` (of a normalization),
            `looks up` (embedding).
        reads: axes of the parameter that the operation sums over, in the order of the features; for a
            convolution the input channel and the positions of its kernel.
        writes: every other axis of the parameter.
        inputs: makes the data as (rows, features); None where the features are not one matrix
            (grouped convolution, one matrix for each expert).
        outputs: makes what the operation gave, its own bias included, as (rows, outputs); None like `inputs`.
        bias: name of the bias that the operation itself adds; empty if none.
    """

    parameter: str
    role: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    inputs: Callable[[], Tensor] | None = None
    outputs: Callable[[], Tensor] | None = None
    bias: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One ATen operation that ran."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


#: Name and tensor of every parameter and buffer, by its storage.
Stored: TypeAlias = dict[StorageWeakRef, tuple[str, Tensor]]


def stored(model: nn.Module) -> Stored:
    """Return the parameters and buffers of `model` by storage; tied ones go by their first name."""
    found: Stored = {}
    for name, tensor in tensors(model).items():
        found.setdefault(StorageWeakRef(tensor.untyped_storage()), (name, tensor))
    return found


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer of `model` itself, under each of its names."""
    parameters = model.named_parameters(remove_duplicate=False)
    return dict(parameters) | dict(model.named_buffers(remove_duplicate=False))


def first_names(model: nn.Module) -> dict[str, str]:
    """Return for every name of a parameter or buffer the first name of the same storage.

    Example:
        >>> tied = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
        >>> tied["b"].weight = tied["a"].weight
        >>> first_names(tied)
        {'a.weight': 'a.weight', 'b.weight': 'a.weight'}
    """
    first = stored(model)
    return {name: first[StorageWeakRef(t.untyped_storage())][0] for name, t in tensors(model).items()}


class _Watch(TorchDispatchMode):
    def __init__(self, visit: Callable[[Operation], object]) -> None:
        super().__init__()
        self._visit = visit

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        instead = self._visit(Operation(func, args, kwargs or {}, output))
        return output if instead is None else instead


@contextmanager
def _open_attention() -> Iterator[None]:
    # The fused encoder of nn.MultiheadAttention is one opaque operation; its ordinary path is the same function.
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def watch(model: nn.Module, inputs: Inputs, visit: Callable[[Operation], object]) -> Any:
    """Run `model` on its device without gradients, show every operation to `visit`, and return the outputs.

    What `visit` returns takes the place of what the operation gave, unless it is None.
    """
    moved = on_device_of(model, inputs)
    with torch.no_grad(), _open_attention(), _Watch(visit):
        return call(model, moved)


def on_device_of(model: nn.Module, inputs: Inputs) -> Inputs:
    """Return `inputs` on the device of `model`."""
    device = device_of(model)
    return map_tensors(lambda tensor: tensor.to(device), inputs)


def uses(model: nn.Module, inputs: Inputs) -> tuple[Use, ...]:
    """Return every use of a parameter in one forward pass, in order.

    Example:
        >>> [(use.parameter, use.reads) for use in uses(nn.Conv2d(1, 2, 3), (torch.zeros(1, 1, 4, 4),))]
        [('weight', (1, 2, 3))]
    """
    known = stored(model)
    seen: list[Use] = []
    watch(model, inputs, lambda operation: seen.extend(filter(None, [use_of(operation, known)])))
    return tuple(seen)


def use_of(operation: Operation, known: Stored) -> Use | None:
    """Return how `operation` uses a parameter, or None if it does not multiply data by one."""
    function = operation.function
    if function in _PRODUCTS:
        use = _product(operation, known)
    elif function in _WEIGHT_AT:
        position, make = _WEIGHT_AT[function]
        found = _find(operation.args[position], known)
        use = make(found[0], operation) if found else None
    else:
        return None
    if use is None or function not in _BIAS_AT or len(operation.args) <= _BIAS_AT[function]:
        return use
    bias = _find(operation.args[_BIAS_AT[function]], known)
    return replace(use, bias=bias[0]) if bias else use


def _find(value: Any, known: Stored) -> tuple[str, Tensor] | None:
    return known.get(StorageWeakRef(value.untyped_storage())) if isinstance(value, Tensor) else None


def _linear(name: str, operation: Operation) -> Use:
    data, output = operation.args[0], operation.output
    return Use(name, "contracts", (1,), (0,), lambda: data.flatten(0, -2), lambda: output.flatten(0, -2))


def _scale(name: str, operation: Operation) -> Use:  # noqa: ARG001  one signature for the whole table
    return Use(name, "scales", (), (0,))


def _embedding(name: str, operation: Operation) -> Use:  # noqa: ARG001  one signature for the whole table
    return Use(name, "looks up", (0,), (1,))


def _product(operation: Operation, known: Stored) -> Use | None:
    left, right = (operation.args[i] for i in _PRODUCTS[operation.function])
    output = operation.output
    if found := _find(right, known):
        view, data, result = right, left, output
    elif found := _find(left, known):
        view, data, result = left.mT, right.mT, output.mT
    else:
        return None
    name, parameter = found
    *batch, reads, _ = _axes(view, parameter)
    if not reads:
        # One feature: an axis of size 1 has no stride to be known by; PyTorch's own layers read the last.
        reads = tuple(axis for axis in range(parameter.dim()) if parameter.shape[axis] == 1)[-1:]
    writes = tuple(axis for axis in range(parameter.dim()) if axis not in reads)
    if batch and batch[0]:
        return Use(name, "contracts", reads, writes)
    return Use(name, "contracts", reads, writes, lambda: data.flatten(0, -2), lambda: result.flatten(0, -2))


def _axes(view: Tensor, parameter: Tensor) -> tuple[tuple[int, ...], ...]:
    """Return for each dimension of `view` the axes of `parameter` inside it, outer first.

    An axis lies in a dimension if its stride is a step of that dimension.
    """
    return tuple(
        tuple(
            axis
            for axis, (size, stride) in enumerate(zip(parameter.shape, parameter.stride(), strict=True))
            if size > 1 and step <= stride < step * length
        )
        for length, step in zip(view.shape, view.stride(), strict=True)
    )


def _convolution(name: str, operation: Operation) -> Use:
    data, weight, _, stride, padding, dilation, transposed, _, groups = operation.args
    output, kernel = operation.output, tuple(range(2, weight.dim()))
    if transposed:
        return Use(name, "contracts", (0,), (1, *kernel))
    if groups > 1:
        reads = () if weight.shape[1] == 1 else (1, *kernel)
        return Use(name, "contracts", reads, (0,) if reads else tuple(range(weight.dim())))
    return Use(
        name,
        "contracts",
        (1, *kernel),
        (0,),
        lambda: patches(data, tuple(weight.shape[2:]), stride, padding, dilation),
        lambda: output.movedim(1, -1).flatten(0, -2),
    )


def patches(
    data: Tensor, kernel: tuple[int, ...], stride: list[int], padding: list[int], dilation: list[int]
) -> Tensor:
    """Return the windows that a convolution sees, (positions, channels x kernel), for any number of dimensions.

    Example:
        >>> patches(torch.arange(4.0).view(1, 1, 4), (2,), [1], [0], [1])
        tensor([[0., 1.],
                [1., 2.],
                [2., 3.]])
    """
    rank = len(kernel)
    per_axis = (
        list(values) * rank if len(values) == 1 else list(values) for values in (stride, padding, dilation)
    )
    stride, padding, dilation = per_axis
    windows = pad(data, [p for amount in reversed(padding) for p in (amount, amount)])
    for axis in range(rank):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        windows = windows.unfold(2 + axis, reach, stride[axis])[..., :: dilation[axis]]
    return windows.movedim(1, 1 + rank).flatten(0, rank).flatten(1)


#: Other operations with a parameter: its position, and how it is used.
_WEIGHT_AT: dict[Any, tuple[int, Callable[[str, Operation], Use]]] = {
    aten.convolution.default: (1, _convolution),
    aten.linear.default: (1, _linear),
    aten.embedding.default: (0, _embedding),
    aten.native_layer_norm.default: (2, _scale),
    aten.native_group_norm.default: (1, _scale),
    aten.native_batch_norm.default: (1, _scale),
    aten._native_batch_norm_legit.default: (1, _scale),
    aten._native_batch_norm_legit_no_training.default: (1, _scale),
    aten.cudnn_batch_norm.default: (1, _scale),
}
