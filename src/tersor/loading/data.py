"""Turn what the user hands over as data into sources: one to be split, or several that are split already."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from tersor.errors import DataError
from tersor.loading.drawn import PART, Drawn
from tersor.loading.files import is_file_reference, read_files
from tersor.loading.images import Images
from tersor.loading.keras.opening import is_keras_data
from tersor.loading.references import first_line, is_entry_point, load_object
from tersor.loading.sources import Indexable, Items, Rows, Source, Stream
from tersor.loading.stacking import Arrayish, as_tensor, stack

#: What people call the parts, and the part that it is.
PART_NAMES = {
    "train": "train",
    "training": "train",
    "calibration": "calibration",
    "search": "search",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "certification",
    "certification": "certification",
}
#: Samplers that visit the whole dataset, each in its order.
_WHOLE = (SequentialSampler, RandomSampler, WeightedRandomSampler, DistributedSampler)


def load_data(data: object) -> dict[str, Source]:
    """Return the sources of `data` by part: `{"data": source}` where it is one set that is still to be split.

    Args:
        data: a string (`module:function`, `file.py:function`, `npz:`, `csv:`, `tsv:`, `parquet:`, `imagefolder:`,
            `hf:`, `sklearn:`, `random:`), a DataLoader, a dataset with a length and an index (PyTorch, Hugging Face,
            list), an iterable of samples or batches, arrays, `(x, y)`, a dict of arrays; or explicit splits: a pair
            (train, validation) of any of these, or a dict of them with keys of `PART_NAMES`.

    Returns:
        Sources by part name: `data`, or some of train, calibration, search, validation, certification; `drawn` for
        inputs drawn at random.

    Raises:
        DataError: if it cannot be read as any of these.

    Example:
        >>> list(load_data((np.zeros((4, 2)), np.zeros(4))))
        ['data']
        >>> list(load_data({"train": np.zeros((4, 2)), "test": np.ones((2, 2))}))
        ['train', 'certification']
    """
    if isinstance(data, str | Path):
        data = _from_string(str(data))
    if isinstance(data, Drawn):
        return {PART: data}
    if isinstance(data, Mapping) and data and all(key in PART_NAMES for key in data):
        return _named_parts(data)
    if isinstance(data, tuple | list) and len(data) == 2 and all(_is_a_set(part) for part in data):
        return {"train": open_source(data[0], "train"), "validation": open_source(data[1], "validation")}
    return {"data": open_source(data, "data")}


def _from_string(reference: str) -> object:
    if is_file_reference(reference):
        return read_files(reference)
    if not is_entry_point(reference):
        raise DataError(
            f"{reference!r} is not a data reference. Write 'module:function', 'file.py:function', 'npz:FILE', "
            "'csv:FILE?target=COLUMN', 'tsv:FILE?target=COLUMN', 'parquet:FILE?target=COLUMN', "
            "'parquet:FILE?image=COLUMN&label=COLUMN', 'imagefolder:DIR', 'hf:FOLDER?target=COLUMN', 'sklearn:NAME' or "
            "'random:SHAPE'."
        )
    found = load_object(reference, DataError)
    if isinstance(found, Dataset | DataLoader | Mapping | tuple | list | Arrayish) or not callable(found):
        return found
    made = _called(found, reference)
    return found if isinstance(made, Iterator) else made


def _called(function: Callable[[], object], name: str) -> object:
    try:
        return function()
    except Exception as cause:  # the user's function may raise anything
        raise DataError(f"{name!r} could not make the data: {first_line(cause)}") from cause


def _named_parts(data: Mapping[str, object]) -> dict[str, Source]:
    parts: dict[str, Source] = {}
    for key, value in data.items():
        name = PART_NAMES[key]
        if name in parts:
            raise DataError(
                f"Two of the given splits ({', '.join(map(repr, data))}) are both the {name} data; give one."
            )
        parts[name] = open_source(value, key)
    return parts


def _is_a_set(part: object) -> bool:
    if isinstance(part, Arrayish):
        return False
    if isinstance(part, tuple | list):
        return bool(part) and all(isinstance(p, Arrayish) for p in part)
    return isinstance(part, Dataset | DataLoader | Mapping | Indexable | Images | str | Path) or callable(
        part
    )


def open_source(data: object, name: str) -> Source:
    """Return one data set as a source.

    Args:
        data: any single set that `load_data` takes.
        name: what to call it in messages.

    Raises:
        DataError: if it cannot be read.
    """
    if isinstance(data, str | Path):
        data = _from_string(str(data))
    if isinstance(data, Rows | Items | Stream | Images | Drawn):
        return data
    if isinstance(data, DataLoader):
        return _from_loader(data)
    if isinstance(data, TensorDataset):
        return _rows(tuple(data.tensors), name)
    if isinstance(data, IterableDataset):
        return Stream(lambda: data, batched=False)
    if isinstance(data, Mapping | tuple | Arrayish) and not isinstance(data, Dataset):
        return _rows(data, name)
    if is_keras_data(data):
        return _from_keras(data)
    if isinstance(data, Indexable):
        return _from_index(data, name)
    return _from_iterable(data, name)


def _from_keras(data: Any) -> Stream:
    return Stream(lambda: (data[i] for i in range(len(data))), batched=True)


def _rows(data: object, name: str) -> Rows:
    columns = _columns(data, name)
    lengths = sorted(set(_lengths(columns)))
    if len(lengths) != 1:
        raise DataError(
            f"The arrays of the {name} data differ in length: {', '.join(map(str, lengths))} rows."
        )
    return Rows(columns, lengths[0])


def _columns(data: object, name: str) -> Any:
    if isinstance(data, Mapping):
        return {key: _columns(value, name) for key, value in data.items()}
    if isinstance(data, tuple):
        return tuple(_columns(value, name) for value in data)
    tensor = as_tensor(data, share=True)
    if tensor is None or tensor.ndim == 0:
        raise DataError(
            f"The {name} data holds {_what(data)}, which is no array of numbers. Turn text into token numbers and "
            "categories into integers first."
        )
    return tensor


def _what(value: object) -> str:
    kind = f"an array of {np.asarray(value).dtype}" if isinstance(value, Arrayish) else type(value).__name__
    return f"{value!r} ({kind})" if isinstance(value, str | int | float) else kind


def _lengths(columns: Any) -> list[int]:
    if isinstance(columns, Tensor):
        return [len(columns)]
    values = columns.values() if isinstance(columns, Mapping) else columns
    return [length for value in values for length in _lengths(value)]


def _from_loader(loader: "DataLoader[Any]") -> Source:
    dataset = loader.dataset
    if isinstance(dataset, IterableDataset):
        if loader.batch_size is None:
            return Stream(lambda: dataset, batched=True)
        return Stream(lambda: dataset, batched=False, collate=_collate(loader))
    if loader.batch_sampler is None:
        return Stream(lambda: loader, batched=True)
    if (
        isinstance(dataset, TensorDataset)
        and isinstance(loader.sampler, _WHOLE)
        and _collate(loader) is stack
    ):
        return _rows(tuple(dataset.tensors), "loader's")
    if not isinstance(dataset, Indexable):
        raise DataError(
            f"The loader's dataset {type(dataset).__name__} has no length, or no index; give it __len__."
        )
    collate = _collate(loader)
    return Items(dataset, _places(loader, len(dataset)), collate, 64 if collate is stack else 1)


def _collate(loader: "DataLoader[Any]") -> Callable[[list[Any]], Any]:
    return stack if loader.collate_fn is default_collate else loader.collate_fn


def _places(loader: "DataLoader[Any]", size: int) -> np.ndarray:
    """Return the indices that a loader visits, in ascending order."""
    plain = type(loader.batch_sampler) is BatchSampler
    if plain and isinstance(loader.sampler, _WHOLE):
        return np.arange(size)
    visited = loader.sampler if plain else (i for batch in loader.batch_sampler or () for i in batch)
    return np.unique(np.fromiter(visited, dtype=np.int64))


def _from_index(data: Indexable, name: str) -> Source:
    size = len(data)
    if not size:
        raise DataError(f"The {name} data is empty. Check the path, the filter or the slice that makes it.")
    if isinstance(data, list) and _is_pair_of_arrays(data):
        return _rows(tuple(data), name)
    if isinstance(data, list) and _is_batch(data[0]):
        return Stream(lambda: data, batched=True)
    return Items(data, np.arange(size))


def _is_pair_of_arrays(data: list[Any]) -> bool:
    """Return whether a list is [x, y] rather than two samples: equal lengths, other shapes."""
    arrays = [_columns_or_none(part) for part in data]
    shapes = {tuple(a.shape[1:]) for a in arrays if a is not None and a.ndim}
    lengths = {len(a) for a in arrays if a is not None and a.ndim}
    return len(data) > 1 and all(a is not None for a in arrays) and len(shapes) > 1 and len(lengths) == 1


def _from_iterable(data: object, name: str) -> Source:
    if isinstance(data, Iterator):
        raise DataError(
            f"The {name} data is a {type(data).__name__}, which can be walked only once. Pass the function that "
            "makes it, or a dataset."
        )
    walk: Callable[..., Any]
    if isinstance(data, Iterable):
        walk = lambda: data
    elif callable(data):
        made = _called(data, name)
        if not isinstance(made, Iterator):
            return open_source(made, name)
        walk = data
    else:
        raise DataError(
            f"The {name} data is {type(data).__name__}. Pass a DataLoader, a dataset, arrays, (x, y), a dict of "
            "arrays, a function that makes one of these, or a reference such as 'csv:FILE?target=COLUMN'."
        )
    first = next(iter(Stream(walk, batched=True).raw()), None)
    if first is None:
        raise DataError(f"The {name} data is empty. Check the path, the filter or the slice that makes it.")
    return Stream(walk, batched=_is_batch(first))


def _is_batch(value: object) -> bool:
    """Return whether an element of an iterable is a batch: all its leaves are arrays of one length."""
    parts = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(parts, tuple | list) or not parts:
        return False
    inner = [_columns_or_none(part) for part in parts]
    lengths = {len(t) for t in inner if t is not None and t.ndim}
    return all(t is not None and t.ndim for t in inner) and len(lengths) == 1 and len(parts) > 1


def _columns_or_none(part: object) -> torch.Tensor | None:
    return as_tensor(part) if isinstance(part, Arrayish) else None
