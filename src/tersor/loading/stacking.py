"""Samples into a batch, and a batch into its leaves: one form for tuples, dicts and everything between.

A *path* names a leaf of a nested batch: `()` is the batch itself, `(1,)` the second element of a tuple,
`(0, "input_ids")` a key of a dict that is the first element.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from tersor.errors import DataError

Path: TypeAlias = tuple[int | str, ...]


@runtime_checkable
class Arrayish(Protocol):
    """What turns into an array by itself: numpy, torch, pandas, polars, jax."""

    def __array__(self, dtype: Any = None) -> np.ndarray:
        """Return the values as an array."""
        ...


@runtime_checkable
class _Pixels(Protocol):
    __array_interface__: Any


def leaves(batch: Any, path: Path = ()) -> dict[Path, Any]:
    """Return the leaves of a nested batch by path, in order.

    Example:
        >>> list(leaves(({"a": 1, "b": 2}, 3)))
        [(0, 'a'), (0, 'b'), (1,)]
    """
    if isinstance(batch, Mapping):
        return {p: leaf for key, value in batch.items() for p, leaf in leaves(value, (*path, key)).items()}
    if isinstance(batch, tuple):
        return {p: leaf for i, value in enumerate(batch) for p, leaf in leaves(value, (*path, i)).items()}
    return {path: batch}


def tupled(batch: Any) -> Any:
    """Return a nested batch with tuples for the lists that hold several arrays; lists of numbers stay.

    Example:
        >>> tupled([torch.zeros(1), [1, 2]])
        (tensor([0.]), [1, 2])
    """
    if isinstance(batch, Mapping):
        return {key: tupled(value) for key, value in batch.items()}
    if isinstance(batch, tuple) or (isinstance(batch, list) and not _is_vector(batch)):
        return tuple(tupled(value) for value in batch)
    return batch


def as_tensor(value: Any, *, share: bool = False) -> Tensor | None:
    """Return a numeric value, array, image or list of numbers as a tensor; None for anything else, such as text.

    Args:
        value: what is to become a tensor.
        share: use the memory of a read-only array (a file mapped into memory, say); the tensor must not be written to.

    Example:
        >>> as_tensor([1, 2]), as_tensor("text")
        (tensor([1, 2]), None)
    """
    if isinstance(value, Tensor):
        return value
    if value is None or isinstance(value, str | bytes | Mapping):
        return None
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):  # ragged lists
        return None
    if array.dtype == np.uint16 or array.dtype == np.uint32:
        array = array.astype(np.int64)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        return None
    # A copy where numpy's memory cannot be shared safely: read-only, reversed or foreign byte order.
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    if native.flags.writeable:
        return torch.from_numpy(native)
    if not share:
        return torch.from_numpy(native.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(native)


def stack(samples: Sequence[Any]) -> Any:
    """Stack samples of equal form into one batch; leaves that are not numbers stay lists.

    Sequences of numbers inside a sample are vectors (as Hugging Face datasets give them), not one leaf each position.

    Raises:
        DataError: if samples differ in form or shape.

    Example:
        >>> stack([{"ids": [1, 2], "label": 0}, {"ids": [3, 4], "label": 1}])["label"]
        tensor([0, 1])
    """
    first = samples[0]
    if isinstance(first, Mapping):
        if any(not isinstance(s, Mapping) or s.keys() != first.keys() for s in samples):
            raise DataError(f"Samples differ in their keys; the first one has {', '.join(map(repr, first))}.")
        return {key: stack([s[key] for s in samples]) for key in first}
    if isinstance(first, tuple) or (isinstance(first, list) and not _is_vector(first)):
        if any(not isinstance(s, tuple | list) or len(s) != len(first) for s in samples):
            raise DataError(
                f"Samples differ in length; the first one is a {type(first).__name__} of {len(first)}."
            )
        return tuple(stack([s[i] for s in samples]) for i in range(len(first)))
    return _stack_leaves(samples)


def _is_vector(value: list[Any]) -> bool:
    return not any(isinstance(v, Tensor | np.ndarray | Mapping | tuple | _Pixels) for v in value)


def _stack_leaves(samples: Sequence[Any]) -> Tensor | list[Any]:
    tensors = [as_tensor(sample) for sample in samples]
    numeric = [t for t in tensors if t is not None]
    if len(numeric) < len(tensors):
        return list(samples)
    shapes = {tuple(t.shape) for t in numeric}
    if len(shapes) > 1:
        a, b = sorted(shapes)[:2]
        raise DataError(
            f"Samples have different shapes, {a} and {b}, so they do not stack into a batch. Pad or resize them in "
            "the dataset, or pass a DataLoader with a collate_fn."
        )
    return torch.stack(numeric)
