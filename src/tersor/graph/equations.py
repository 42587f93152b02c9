"""What the user's code says about sizes, as equations between integers and axes.

A traced integer that a call was given as a size becomes an equation; a plain
number that surgery cannot follow freezes its axis.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tersor.graph.cells import Axis
from tersor.graph.claims import GROUPED, HALVES, READERS, VIEWS, Made, sizes_of
from tersor.graph.integers import Expression, Observed, Size, Sizes, Sum, Traced, expression_of
from tersor.graph.labels import Labels, place


@dataclass(frozen=True, slots=True)
class Equation:
    """`expression` has the value `sign` times the number of indices that the axis keeps."""

    expression: Expression
    axis: Axis
    size: int
    sign: int
    what: str


@dataclass(frozen=True, slots=True)
class Tie:
    """Axes that keep equally many indices."""

    axes: tuple[tuple[Axis, int], ...]
    what: str


@dataclass(slots=True)
class Arithmetic:
    """All that one forward pass said about sizes."""

    equations: list[Equation] = field(default_factory=list)
    ties: list[Tie] = field(default_factory=list)


#: What reading `tensor.shape` calls.
SHAPE = vars(torch._C.TensorBase)["shape"].__get__


class IntegerMode(TorchFunctionMode):
    """Give out traced sizes, and turn every call of the user's code into equations."""

    def __init__(self, labels: Labels, seen: Observed) -> None:
        super().__init__()
        self.labels, self.seen = labels, seen
        self.found = Arithmetic()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one call and read what it says about sizes."""
        kwargs = kwargs or {}
        if func == SHAPE:
            return self._shape(args[0], func(*args))
        if func == torch.Tensor.size:
            return self._size(func(*args, **kwargs), *args, **kwargs)
        made = Made(getattr(func, "__name__", ""), args, kwargs)
        self.labels.literal = self._literal(made)
        try:
            made.out = func(*args, **kwargs)
        finally:
            self.labels.literal = None
        self._read(func, made)
        return made.out

    def _shape(self, tensor: Tensor, shape: Sequence[int]) -> Sizes:
        axes = self.labels.of(tensor)
        return Sizes(self._traced(axis, size) for axis, size in zip(axes, shape, strict=True))

    def _size(self, out: Any, input: Tensor, dim: int | None = None) -> Any:
        return self._shape(input, out) if dim is None else self._traced(self.labels.of(input)[dim], out)

    def _traced(self, axis: Axis, size: int) -> Traced:
        return Traced.make(int(size), Size(self.seen, axis, int(size)), self.seen)

    def _literal(self, made: Made) -> tuple[bool, ...] | None:
        """Return for each axis of the output whether the call gives its size as a plain number."""
        if made.name == "unflatten":
            rank, args, kwargs = made.args[0].dim(), made.args, made.kwargs
            first = place(kwargs.get("dim", args[1] if len(args) > 1 else 0), rank)
            sizes = kwargs.get("sizes", args[2] if len(args) > 2 else ())
            return (*[False] * first, *map(self._is_literal, sizes), *[False] * (rank - first - 1))
        sizes = sizes_of(made) if made.name in VIEWS else None
        return None if sizes is None else tuple(map(self._is_literal, sizes))

    def _is_literal(self, value: Any) -> bool:
        own = isinstance(value, Traced) and value.seen is self.seen
        return not own and isinstance(value, int) and int(value) not in (-1, 0, 1)

    def _read(self, func: Any, made: Made) -> None:
        if func is F.multi_head_attention_forward:
            self._attention(_named(func, made))
        elif made.name == "scaled_dot_product_attention":
            self._default_scale(made)
        elif made.name in GROUPED:
            self._groups(made)
        elif made.name in READERS:
            for value, tensor, axis, part, sign in READERS[made.name](made):
                cells = [vector[part] for vector in self.labels.of(tensor)[axis]]
                if cells and isinstance(value, int):
                    self.equate(value, cells, sign, made.name)
        if made.name in HALVES and isinstance(made.out, tuple | list):
            self._halves(made)

    def _default_scale(self, made: Made) -> None:
        scale = made.kwargs.get("scale", made.args[6] if len(made.args) > 6 else None)
        query = made.kwargs.get("query", made.args[0] if made.args else None)
        if scale is None and isinstance(query, Tensor):
            self.labels.freeze(self.labels.of(query)[-1], "its size is the default scale of the attention")

    def equate(self, value: int, cells: Axis, sign: int, name: str) -> None:
        """Add the equation of one size, or freeze the axis under a plain number."""
        if self._is_literal(value):
            self.labels.freeze(cells, f"`{name}` gets its size as a plain number")
        elif isinstance(value, Traced):
            self.found.equations.append(Equation(value.expression, cells, abs(int(value)), sign, name))

    def _groups(self, made: Made) -> None:
        position, key = GROUPED[made.name]
        groups = made.kwargs.get(key, made.args[position] if len(made.args) > position else 1)
        factor = self.labels.factors.get(id(made.out))
        if factor is not None and isinstance(groups, int):
            self.equate(groups, factor, 1, made.name)

    def _halves(self, made: Made) -> None:
        pieces = made.out
        axis = place(made.kwargs.get("dim", made.args[2] if len(made.args) > 2 else 0), pieces[0].dim())
        if len({piece.shape[axis] for piece in pieces}) == 1:
            cells = tuple((self.labels.of(piece)[axis], int(piece.shape[axis])) for piece in pieces)
            self.found.ties.append(Tie(cells, "`chunk` gives equal parts"))

    def _attention(self, call: dict[str, Any]) -> None:
        """Read `F.multi_head_attention_forward`, whose inside is plain Python."""
        labels, query, out = self.labels, call["query"], call["out_proj_weight"]
        width, inner = labels.of(query)[-1], labels.of(out)[1]
        size, heads = int(query.shape[-1]), call["num_heads"]
        rows = [call.get(f"{name}_proj_weight") for name in "qkv"]
        for axis in (inner, *(labels.of(weight)[0] for weight in rows if weight is not None)):
            split = labels.reshape([axis], [size], [int(heads), size // int(heads)])
            labels.freeze(split[1], "its size is the scale of the attention")
        self.equate(call["embed_dim_to_check"], width, 1, "multi_head_attention_forward")
        self.found.ties.append(Tie(((width, size), (inner, size)), "`nn.MultiheadAttention` keeps one width"))
        whole = Sum("mul", expression_of(heads), size // int(heads))
        self.found.equations.append(Equation(whole, inner, size, 1, "multi_head_attention_forward"))
        if not isinstance(heads, Traced):
            labels.freeze(inner, "`multi_head_attention_forward` gets its heads as a plain number")


@lru_cache(maxsize=64)
def _signature(func: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(func)


def _named(func: Callable[..., Any], made: Made) -> dict[str, Any]:
    return dict(_signature(func).bind(*made.args, **made.kwargs).arguments)
