"""Batches of known number: what the loop walks, and what a resumed run walks on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from tersor._check import positive
from tersor.errors import DataError
from tersor.loading.inputs import Inputs, as_inputs, batch_size, flatten, map_tensors
from tersor.loading.task import Batch, Split


class Batches(Protocol):
    """Batches that know how many they are and give the same order on every walk."""

    def __len__(self) -> int:
        """Return the number of batches: the number of training steps."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """Walk from the first batch."""
        ...


#: A list of batches is enough; `Epochs` walks a split without holding it.
Walk: TypeAlias = Batches | Sequence[Batch]


@dataclass(frozen=True)
class InMemory:
    """A split whose samples are tensors: for own data, experiments and tests.

    Attributes:
        inputs: one tensor, or `Inputs` of tensors; the first axis is the sample.
        target: one entry per sample, or None without labels.
        name: of the split.

    Raises:
        DataError: if the tensors differ in their number of samples.

    Example:
        >>> split = InMemory(torch.zeros(5, 2), torch.arange(5))
        >>> [batch.ids for batch in split.batches(3)]
        [(0, 1, 2), (3, 4)]
    """

    inputs: Tensor | Inputs
    target: Tensor | None = None
    name: str = "train"

    def __post_init__(self) -> None:
        sizes = {len(t) for t in flatten(as_inputs(self.inputs))}
        sizes |= set() if self.target is None else {len(self.target)}
        if len(sizes) != 1:
            raise DataError(f"Inputs and target must have one number of samples, got {sorted(sizes)}.")

    def __len__(self) -> int:
        return batch_size(as_inputs(self.inputs))

    def batches(self, size: int, *, shuffle: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Yield batches of `size` samples; the last may be shorter."""
        order = torch.arange(len(self))
        if shuffle is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(shuffle))
        for part in order[:limit].split(size):
            inputs = map_tensors(lambda t, part=part: t[part], as_inputs(self.inputs))
            target = None if self.target is None else self.target[part]
            yield Batch(inputs, target, tuple(part.tolist()))


@dataclass(frozen=True)
class Epochs:
    """A number of shuffled passes over a split, as batches.

    Every pass has its own order, decided by the seed and the number of the pass alone, so that a resumed run
    sees the batches that an undisturbed one would have seen.

    Attributes:
        split: the samples.
        size: most samples per batch; batches of a pass are nearly equal, and a short split gives one of its length.
        epochs: number of passes, above zero; 0.5 is half a pass.
        seed: of the orders.

    Raises:
        ArgumentError: if `size` or `epochs` is not positive.
        DataError: if the split is empty.

    Example:
        >>> split = InMemory(torch.arange(10.0)[:, None], torch.arange(10))
        >>> len(Epochs(split, size=4, epochs=2))
        6
    """

    split: Split
    size: int
    epochs: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        positive("size", self.size)
        positive("epochs", self.epochs)
        if len(self.split) == 0:
            raise DataError(f"The split {self.split.name!r} is empty, so there is nothing to train on.")

    def __len__(self) -> int:
        return max(1, math.ceil(self.epochs * self._per_epoch))

    @property
    def _per_epoch(self) -> int:
        return math.ceil(len(self.split) / self.size)

    @property
    def _even_size(self) -> int:
        # As many batches, of nearly equal sizes: a last batch of a few samples is a step of noise.
        return math.ceil(len(self.split) / self._per_epoch)

    def __iter__(self) -> Iterator[Batch]:
        """Walk from the first batch."""
        for epoch in range(math.ceil(len(self) / self._per_epoch)):
            left = len(self) - epoch * self._per_epoch
            # Large odd factor: neighbouring seeds must not share orders of different epochs.
            order = (self.seed * 1_000_003 + epoch) % 2**31
            yield from islice(self.split.batches(self._even_size, shuffle=order), left)
