"""ONNX operators that move numbers: shapes, slices, joins."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tersor.errors import ModelError
from tersor.loading.onnx.values import Build, Call, Convert, Value
from tersor.loading.onnx.weighted import embedding
from tersor.loading.pieces import Permute

_FOREVER = 2**31


class View(nn.Module):
    """Give a tensor a shape in which 0 keeps the length of that axis and -1 takes what is left.

    Example:
        >>> View((0, -1))(torch.zeros(2, 3, 4)).shape
        torch.Size([2, 12])
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` in the new shape."""
        return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(self.shape)])

    def extra_repr(self) -> str:
        """Return the shape."""
        return str(self.shape)


def reshaped(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return `x` in a shape that was computed, with 0 and -1 as in `View`."""
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape)])


def sizes(x: Tensor, start: int, end: int | None) -> list[int]:
    """Return the lengths of the axes of `x` from `start` to `end`.

    Example:
        >>> sizes(torch.zeros(2, 3, 4), 1, None)
        [3, 4]
    """
    return list(x.shape[start:end])


def picked(values: Sequence[int], index: Any) -> Any:
    """Return the integers at `index`, one or a list.

    Example:
        >>> picked([5, 6, 7], [0, 2]), picked([5, 6, 7], 1)
        ([5, 7], 6)
    """
    return [values[i] for i in index] if isinstance(index, list) else values[index]


def joined(*parts: Any) -> list[int]:
    """Return integers and lists of them as one list."""
    return [n for part in parts for n in (part if isinstance(part, list | tuple) else [part])]


def sliced_list(values: Sequence[int], start: int, end: int, step: int) -> list[int]:
    """Return a slice of a list of integers."""
    return list(values)[start:end:step]


def listed(value: Any) -> list[int]:
    """Return an integer, or a list of them, as a list."""
    return list(value) if isinstance(value, list | tuple) else [value]


def single(value: Any) -> Any:
    """Return the only integer of a list, or the integer."""
    return value[0] if isinstance(value, list | tuple) else value


def expanded(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Broadcast `x` with `shape`, either way."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))


def filled(shape: Sequence[int], value: float | int | bool) -> Tensor:
    """Return a tensor of one value; its type is that of the value."""
    return torch.full(list(shape), value)


def counted(start: int, end: int, step: int) -> Tensor:
    """Return the integers from `start` to `end`."""
    return torch.arange(start, end, step)


def repeated(x: Tensor, times: Sequence[int]) -> Tensor:
    """Repeat `x` along its axes."""
    return x.repeat(list(times))


def _reshape(build: Build, call: Call) -> Value:
    node, shape = build.tensor(call.input(0), call.name), call.input(1)
    if shape.constant is not None:
        return build.module(call.name, View(_any_batch([int(n) for n in shape.constant], build.batch)), node)
    return build.function(reshaped, node, build.numbers(shape))


def _any_batch(shape: list[int], batch: int) -> tuple[int, ...]:
    """Open the batch axis of a shape from a graph whose batch is fixed; the comparison shows whether it was that axis.

    Example:
        >>> _any_batch([1, 64], 1), _any_batch([1, -1], 1), _any_batch([5, 2, 8], 2), _any_batch([4, 4], 0)
        ((-1, 64), (0, -1), (5, -1, 8), (4, 4))
    """
    if batch and -1 not in shape and batch in shape:
        shape[shape.index(batch)] = -1
    elif batch and shape[:1] == [batch]:
        shape[0] = 0
    return tuple(shape)


def _shape(build: Build, call: Call) -> Value:
    start, end = int(call.get("start", 0)), call.get("end")
    return build.count(sizes, build.tensor(call.input(0)), start, end)


def _transpose(build: Build, call: Call) -> Value:
    axes = call.get("perm")
    if axes is None:
        raise ModelError("a transpose without axes is not converted")
    return build.module(call.name, Permute(tuple(axes)), build.tensor(call.input(0), call.name))


def _flatten(build: Build, call: Call) -> Value:
    if int(call.get("axis", 1)) != 1:
        raise ModelError("Flatten is converted with axis=1 only")
    return build.module(call.name, nn.Flatten(1), build.tensor(call.input(0)))


def _axes(call: Call, index: int = 1) -> list[int]:
    given = call.get("axes")
    return [int(n) for n in (call.known(index).reshape(-1) if given is None else given)]


def _unsqueeze(build: Build, call: Call) -> Value:
    value = call.input(0)
    if value.counted and value.constant is None:
        return build.count(listed, build.numbers(value))
    node = build.tensor(value, call.name)
    for axis in sorted(_axes(call)):
        node = build.function(torch.unsqueeze, node, axis).node
    return Value(node)


def _squeeze(build: Build, call: Call) -> Value:
    value = call.input(0)
    if value.host:
        return build.count(single, build.numbers(value))
    return build.function(torch.squeeze, build.tensor(value), tuple(_axes(call)))


def _concat(build: Build, call: Call) -> Value:
    values = [value for value in call.inputs if value is not None]
    if all(value.counted for value in values):
        return build.count(joined, *(build.numbers(value) for value in values))
    return build.function(torch.cat, [build.tensor(v, call.name) for v in values], int(call.get("axis")))


def _gather(build: Build, call: Call) -> Value:
    data, index, axis = call.input(0), call.input(1), int(call.get("axis", 0))
    if data.host:
        return build.count(picked, build.numbers(data), call.known(1).tolist())
    if (
        data.constant is not None
        and data.constant.ndim == 2
        and axis == 0
        and data.constant.dtype.kind == "f"
    ):
        return embedding(build, call)
    node = build.tensor(data, call.name)
    if index.constant is not None and index.constant.ndim == 0:
        return build.function(torch.select, node, axis, int(index.constant))
    if index.host:
        return build.function(torch.select, node, axis, build.numbers(index))
    return build.function(taken, node, axis, build.tensor(index, call.name))


def taken(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """Return the entries of `x` along `axis` at `index`, whose shape takes the place of the axis.

    Example:
        >>> taken(torch.arange(6).reshape(2, 3), 1, torch.tensor([[0, 2]])).shape
        torch.Size([2, 1, 2])
    """
    found = torch.index_select(x, axis, index.reshape(-1).to(torch.int64) % x.shape[axis])
    return found.unflatten(axis, index.shape) if index.ndim != 1 else found


def at_places(x: Tensor, places: Tensor) -> Tensor:
    """Return the entries of `x` at places whose last axis counts along the first axes of `x`.

    Example:
        >>> at_places(torch.arange(6).reshape(2, 3), torch.tensor([[1, 0], [0, 2]]))
        tensor([3, 2])
    """
    return x[places.unbind(-1)]


def _gather_places(build: Build, call: Call) -> Value:
    if call.get("batch_dims", 0):
        raise ModelError("GatherND with batch_dims is not converted")
    return build.function(
        at_places, build.tensor(call.input(0), call.name), build.tensor(call.input(1), call.name)
    )


def _gather_elements(build: Build, call: Call) -> Value:
    index = build.tensor(call.input(1), call.name)
    return build.function(
        torch.gather, build.tensor(call.input(0), call.name), int(call.get("axis", 0)), index
    )


def _triangle(build: Build, call: Call) -> Value:
    function = torch.triu if call.get("upper", 1) else torch.tril
    diagonal = 0 if call.optional(1) is None else int(call.known(1).item())
    return build.function(function, build.tensor(call.input(0), call.name), diagonal)


def _running_sum(build: Build, call: Call) -> Value:
    if call.get("exclusive", 0) or call.get("reverse", 0):
        raise ModelError("CumSum that is exclusive or reversed is not converted")
    return build.function(torch.cumsum, build.tensor(call.input(0)), int(call.known(1).item()))


def _split(build: Build, call: Call) -> list[Value]:
    axis, node = int(call.get("axis", 0)), build.tensor(call.input(0))
    lengths = call.get("split") if call.optional(1) is None else call.known(1).tolist()
    if lengths is None:
        parts = build.graph.call_function(torch.chunk, (node, call.outputs, axis))
    else:
        parts = build.graph.call_function(torch.split, (node, [int(n) for n in lengths], axis))
    return [Value(build.graph.call_function(operator.getitem, (parts, i))) for i in range(call.outputs)]


def _slice(build: Build, call: Call) -> Value:
    value = call.input(0)
    starts, ends = (build.numbers(call.input(i)) for i in (1, 2))
    known = [v.constant for v in (call.input(1), call.input(2))]
    if any(v is None for v in known):
        raise ModelError("a slice whose ends are computed is not converted")
    rank = len(starts)
    axes = list(range(rank)) if call.optional(3) is None else call.known(3).tolist()
    steps = [1] * rank if call.optional(4) is None else call.known(4).tolist()
    if value.host:
        return build.count(sliced_list, build.numbers(value), starts[0], ends[0], steps[0])
    node = build.tensor(value, call.name)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise ModelError("a slice with a negative step is not converted")
        last = None if end >= _FOREVER - 1 else int(end)
        node = build.function(part, node, int(axis), int(start), last, int(step)).node
    return Value(node)


def part(x: Tensor, axis: int, start: int, end: int | None, step: int) -> Tensor:
    """Return a slice of `x` along one axis.

    Example:
        >>> part(torch.arange(5), 0, 1, None, 2)
        tensor([1, 3])
    """
    index = [slice(None)] * (axis % x.ndim) + [slice(start, end, step)]
    return x[tuple(index)]


def _expand(build: Build, call: Call) -> Value:
    return build.function(expanded, build.tensor(call.input(0), call.name), build.numbers(call.input(1)))


def _constant_of_shape(build: Build, call: Call) -> Value:
    value = call.get("value")
    number = 0.0 if value is None else np.asarray(value).reshape(()).item()
    return build.function(filled, build.numbers(call.input(0)), number)


def _range(build: Build, call: Call) -> Value:
    return build.function(counted, *(build.numbers(call.input(i)) for i in range(3)))


def _tile(build: Build, call: Call) -> Value:
    return build.function(repeated, build.tensor(call.input(0), call.name), build.numbers(call.input(1)))


#: Operators that move numbers.
SHAPES: dict[str, Convert] = {
    "Reshape": _reshape,
    "Shape": _shape,
    "Transpose": _transpose,
    "Flatten": _flatten,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_places,
    "Trilu": _triangle,
    "CumSum": _running_sum,
    "Split": _split,
    "Slice": _slice,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Tile": _tile,
}
