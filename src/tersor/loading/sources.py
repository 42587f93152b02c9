"""Data as tersor reads it: samples at known places (`Rows`, `Items`) or samples that pass by (`Stream`)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from tersor.errors import DataError
from tersor.loading.references import first_line
from tersor.loading.stacking import stack


@runtime_checkable
class Places(Protocol):
    """A source with samples at known places, read in any order."""

    @property
    def together(self) -> int:
        """How many samples may be read in one call without changing their content (1 where a collate pads)."""
        ...

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def fetch(self, indices: Sequence[int]) -> Any:
        """Return the samples at `indices` as one batch."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Arrays in memory; sample `i` is row `i` of every leaf.

    Attributes:
        columns: a tensor, or a tuple or dict (nested) of tensors of equal length.
        size: the number of rows.
    """

    columns: Any
    size: int
    together: int = 4096

    def __len__(self) -> int:
        return self.size

    def fetch(self, indices: Sequence[int]) -> Any:
        """Return the rows at `indices`."""
        return _rows(self.columns, torch.as_tensor(np.asarray(indices, dtype=np.int64)))


def _rows(columns: Any, index: Tensor) -> Any:
    if isinstance(columns, Mapping):
        return {key: _rows(value, index) for key, value in columns.items()}
    if isinstance(columns, tuple):
        return tuple(_rows(value, index) for value in columns)
    return columns[index]


@runtime_checkable
class Indexable(Protocol):
    """What map-style datasets have in common: PyTorch's, Hugging Face's, lists."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return one sample."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """A map-style dataset, read sample by sample.

    Attributes:
        dataset: the dataset.
        places: the indices that belong to it, in order.
        collate: makes a batch of a list of samples.
        together: see `Places`.
    """

    dataset: Indexable
    places: np.ndarray
    collate: Callable[[list[Any]], Any] = stack
    together: int = 64

    def __len__(self) -> int:
        return len(self.places)

    def fetch(self, indices: Sequence[int]) -> Any:
        """Read and stack the samples at `indices`.

        Raises:
            DataError: if the dataset or its collate function fails.
        """
        return _collated(self.collate, [self._sample(int(self.places[i])) for i in indices])

    def _sample(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except DataError:
            raise
        except Exception as cause:  # the user's dataset may raise anything
            raise DataError(f"Reading sample {index} of the dataset failed: {first_line(cause)}") from cause


def _collated(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    try:
        return collate(samples)
    except DataError:
        raise
    except Exception as cause:  # the user's collate function may raise anything
        raise DataError(
            f"Stacking {len(samples)} samples into a batch failed: {first_line(cause)}"
        ) from cause


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Data that can only be walked from its start, such as files larger than memory.

    Attributes:
        walk: starts a new walk; every walk gives the same samples.
        batched: whether a walk gives batches of samples instead of single ones.
        collate: makes a batch of a list of samples.
    """

    walk: Callable[[], Iterable[Any]]
    batched: bool
    collate: Callable[[list[Any]], Any] = stack

    def batches(self) -> Iterator[Any]:
        """Yield batches whose samples' content does not depend on their neighbours.

        Raises:
            DataError: if the user's iterator or collate function fails.
        """
        yield from (batch for _, batch in self.groups())

    def groups(self) -> Iterator[tuple[list[Any], Any]]:
        """Yield the samples as they come, with the batch that they make; no samples where batches come.

        Raises:
            DataError: if the user's iterator or collate function fails.
        """
        raw = self.raw()
        if self.batched:
            yield from (([], batch) for batch in raw)
        else:
            # Our own stacking refuses samples of different shapes; another collate may pad them to their neighbours.
            together = 64 if self.collate is stack else 1
            while samples := list(islice(raw, together)):
                yield samples, _collated(self.collate, samples)

    def raw(self) -> Iterator[Any]:
        """Yield what one walk gives: batches if `batched`, else samples.

        Raises:
            DataError: if the user's iterator fails.
        """
        try:
            yield from self.walk()
        except DataError:
            raise
        except Exception as cause:  # the user's iterator may raise anything
            raise DataError(f"Reading the stream failed: {first_line(cause)}") from cause


Source: TypeAlias = Places | Stream
