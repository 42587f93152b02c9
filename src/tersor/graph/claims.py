"""What one torch call of the user's code says about sizes.

Each function reads one family of calls and yields, for every size that the
call was given, the axis that has that size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tersor.graph.integers import Traced
from tersor.graph.labels import place

#: A size, the tensor and axis that it is the size of, the indices that it counts, and its sign.
Claim: TypeAlias = tuple[Any, Tensor, int, slice, int]
ALL = slice(None)
VIEWS = {
    "view", "reshape", "expand", "broadcast_to", "unflatten", "zeros", "ones", "empty", "full", "rand", "randn",
    "as_strided", "new_zeros", "new_ones", "new_full", "new_empty", "repeat", "tile",
}  # fmt: skip
CREATORS = {"zeros", "ones", "empty", "full", "rand", "randn"}


@dataclass(slots=True)
class Made:
    """One torch call of the user's code, as it was made."""

    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]
    out: Any = None


def sizes_of(made: Made) -> tuple[Any, ...] | None:
    """Return the sizes that a call of the view family was given."""
    if made.name == "unflatten":
        return None
    given = made.kwargs.get("size", made.kwargs.get("shape"))
    if given is None:
        rest = made.args if made.name in CREATORS else made.args[1:]
        given = rest[0] if rest and isinstance(rest[0], tuple | list) else rest
    return tuple(given) if all(isinstance(size, int) for size in given) else None


def view_claims(made: Made) -> Iterator[Claim]:
    """Yield the claims of view, reshape, expand and of calls that create tensors."""
    sizes = sizes_of(made)
    if sizes is None or len(sizes) != made.out.dim():
        return
    for axis, size in enumerate(sizes):
        yield size, made.out, axis, ALL, 1


def repeat_claims(made: Made) -> Iterator[Claim]:
    """Yield the claims of repeat and tile for the axes that had one index."""
    sizes, source = sizes_of(made), made.args[0]
    if sizes is None or len(sizes) != made.out.dim():
        return
    for axis, times in enumerate(sizes):
        own = axis - (made.out.dim() - source.dim())
        if own < 0 or source.shape[own] == 1:
            yield times, made.out, axis, ALL, 1


def unflatten_claims(made: Made) -> Iterator[Claim]:
    """Yield the claims of unflatten."""
    first = place(made.kwargs.get("dim", made.args[1] if len(made.args) > 1 else 0), made.args[0].dim())
    sizes = made.kwargs.get("sizes", made.args[2] if len(made.args) > 2 else ())
    for offset, size in enumerate(sizes):
        yield size, made.out, first + offset, ALL, 1


def index_claims(made: Made) -> Iterator[Claim]:
    """Yield the claims of the bounds in `x[a:b]`, on reading and on writing."""
    tensor, index = made.args[0], made.args[1]
    items = index if isinstance(index, tuple) else (index,)
    taken = sum(_width(item) for item in items if item is not None and item is not Ellipsis)
    axis = 0
    for item in items:
        if item is None:
            continue
        if item is Ellipsis:
            axis += tensor.dim() - taken
            continue
        if isinstance(item, slice) and axis < tensor.dim():
            for bound in (item.start, item.stop):
                yield from _bound(bound, tensor, axis)
        axis += _width(item)


def _width(index: Any) -> int:
    """Return how many axes one index consumes."""
    return index.dim() if isinstance(index, Tensor) and index.dtype == torch.bool else 1


def _bound(bound: Any, tensor: Tensor, axis: int) -> Iterator[Claim]:
    if isinstance(bound, int) and not isinstance(bound, bool) and int(bound) != 0:
        size = tensor.shape[axis]
        if 0 < int(bound) <= size:
            yield bound, tensor, axis, slice(0, int(bound)), 1
        elif -size <= int(bound) < 0:
            yield bound, tensor, axis, slice(int(bound), None), -1
        elif isinstance(bound, Traced):
            yield int(bound), tensor, axis, ALL, 1


def narrow_claims(made: Made) -> Iterator[Claim]:
    """Yield the claims of narrow."""
    values = dict(zip(("input", "dim", "start", "length"), made.args, strict=False)) | made.kwargs
    tensor, start = values["input"], values["start"]
    axis = place(values["dim"], tensor.dim())
    yield from _bound(start, tensor, axis)
    yield values["length"], made.out, axis, ALL, 1


def split_claims(made: Made) -> Iterator[Claim]:
    """Yield the claims of split with a size or sizes."""
    sizes = next(
        (made.kwargs[k] for k in ("split_size_or_sections", "split_size", "split_sizes") if k in made.kwargs),
        None,
    )
    sizes = made.args[1] if sizes is None else sizes
    axis = place(made.kwargs.get("dim", made.args[2] if len(made.args) > 2 else 0), made.args[0].dim())
    if not isinstance(sizes, tuple | list):
        even = len({piece.shape[axis] for piece in made.out}) == 1
        sizes = [sizes if even else int(sizes)] * len(made.out)
    for size, piece in zip(sizes, made.out, strict=False):
        yield size, piece, axis, ALL, 1


def layer_norm_claims(made: Made) -> Iterator[Claim]:
    """Yield the claims of the normalized shape."""
    shape = made.kwargs.get("normalized_shape", made.args[1] if len(made.args) > 1 else ())
    for offset, size in enumerate(shape):
        yield size, made.out, made.out.dim() - len(shape) + offset, ALL, 1


READERS: dict[str, Callable[..., Iterator[Claim]]] = {
    **dict.fromkeys(VIEWS, view_claims),
    "repeat": repeat_claims,
    "tile": repeat_claims,
    "unflatten": unflatten_claims,
    "__getitem__": index_claims,
    "__setitem__": index_claims,
    "narrow": narrow_claims,
    "split": split_claims,
    "split_with_sizes": split_claims,
    "layer_norm": layer_norm_claims,
    "rms_norm": layer_norm_claims,
}
#: Calls that divide channels into groups: the position and the name of the number of groups.
GROUPED = {
    "conv1d": (6, "groups"), "conv2d": (6, "groups"), "conv3d": (6, "groups"),
    "conv_transpose1d": (6, "groups"), "conv_transpose2d": (6, "groups"), "conv_transpose3d": (6, "groups"),
    "group_norm": (1, "num_groups"),
}  # fmt: skip
HALVES = {"chunk", "tensor_split", "glu"}
