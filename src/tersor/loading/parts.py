"""The splits themselves: walks over chosen samples of a source."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tersor.loading.binding import Binding
from tersor.loading.inputs import Inputs, joined, map_tensors
from tersor.loading.sources import Places, Stream
from tersor.loading.survey import fingerprints
from tersor.loading.task import Batch

#: Sample numbers of the k-th source start at k times this, so that no two sources share one.
SOURCE_STRIDE = 1 << 40
#: Samples that a shuffled stream holds back to draw from.
_RESERVOIR = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A split of samples at known places.

    Attributes:
        name: of the split.
        source: where the samples are.
        indices: which ones, in stored order.
        digests: their fingerprints, in the same order.
        binding: how batches become inputs and target.
        first_id: number of the source's first sample.
    """

    name: str
    source: Places
    indices: np.ndarray
    digests: np.ndarray
    binding: Binding
    first_id: int = 0

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, size: int, *, shuffle: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Yield batches of `size` samples; see `Split.batches`."""
        order = self.indices
        if shuffle is not None:
            order = np.random.default_rng(shuffle).permutation(order)
        order = order[:limit]
        for start in range(0, len(order), size):
            chosen = [int(i) for i in order[start : start + size]]
            inputs, target = self.binding.bind(self.source.fetch(chosen))
            yield Batch(inputs, target, tuple(self.first_id + i for i in chosen))

    def choose(self, positions: np.ndarray, name: str) -> "Part":
        """Return the samples at `positions` of this split as a split of another name."""
        return replace(self, name=name, indices=self.indices[positions], digests=self.digests[positions])

    def digest(self) -> str:
        """Return the SHA-256 of the samples' sorted fingerprints: which data this is, whatever its order."""
        return _sha256(self.digests)


@dataclass(frozen=True, slots=True, eq=False)
class StreamPart:
    """A split of a stream: the samples whose fingerprints are among `members`.

    Attributes:
        name: of the split.
        source: the stream.
        members: sorted unique fingerprints, shape (unique samples,), dtype uint64.
        size: number of samples, repeated ones included.
        binding: how batches become inputs and target.
    """

    name: str
    source: Stream
    members: np.ndarray
    size: int
    binding: Binding

    def __len__(self) -> int:
        return self.size

    def batches(self, size: int, *, shuffle: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Yield batches of `size` samples; a shuffle draws from a reservoir that moves along the stream."""
        samples = self._samples()
        if shuffle is not None:
            samples = _shuffled(samples, np.random.default_rng(shuffle))
        samples = islice(samples, self.size if limit is None else min(limit, self.size))
        while chunk := list(islice(samples, size)):
            yield self._batch(chunk)

    def first(self, count: int, name: str) -> "StreamPart":
        """Return the first `count` samples as a split of another name."""
        return replace(self, name=name, size=min(count, self.size))

    def digest(self) -> str:
        """Return the SHA-256 of the samples' sorted fingerprints."""
        return _sha256(self.members)

    def _samples(self) -> "Iterator[tuple[Any, int]]":
        """Yield each sample of this split with its number (its fingerprint, so that order does not matter)."""
        for samples, batch in self.source.groups():
            inputs, target = self.binding.bind(batch)
            digests = fingerprints(inputs)
            for row in np.flatnonzero(_among(digests, self.members)):
                number = int(digests[row] >> np.uint64(1))
                yield (samples[row] if samples else _row(inputs, target, int(row))), number

    def _batch(self, chunk: list[tuple[Any, int]]) -> Batch:
        ids = tuple(number for _, number in chunk)
        if not self.source.batched:
            return Batch(*self.binding.bind(self.source.collate([raw for raw, _ in chunk])), ids)
        inputs = joined([inputs for (inputs, _), _ in chunk])
        targets = [target for (_, target), _ in chunk]
        return Batch(inputs, None if targets[0] is None else torch.cat(targets), ids)


def _row(inputs: Inputs, target: Tensor | None, row: int) -> tuple[Inputs, Tensor | None]:
    chosen = slice(row, row + 1)
    return map_tensors(lambda t: t[chosen].clone(), inputs), None if target is None else target[
        chosen
    ].clone()


def _among(digests: np.ndarray, members: np.ndarray) -> np.ndarray:
    places = np.searchsorted(members, digests).clip(max=max(len(members) - 1, 0))
    return members[places] == digests if len(members) else np.zeros(len(digests), dtype=bool)


def _shuffled(samples: Iterator[Any], rng: np.random.Generator) -> Iterator[Any]:
    held = list(islice(samples, _RESERVOIR))
    for sample in samples:
        place = int(rng.integers(len(held)))
        held[place], sample = sample, held[place]
        yield sample
    yield from (held[i] for i in rng.permutation(len(held)))


def _sha256(digests: np.ndarray) -> str:
    return hashlib.sha256(np.sort(digests).astype("<u8").tobytes()).hexdigest()
