"""Augmented data whose every view can be made again: random numbers come from counters, not from a stream."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tersor._check import positive
from tersor.loading.inputs import Inputs, map_tensors
from tersor.loading.task import Batch, Split

#: Changes inputs at random; it is given one generator for each sample, and must draw from nothing else.
Augment: TypeAlias = Callable[[Inputs, Sequence[np.random.Generator]], Inputs]


def counter_rng(seed: int, sample: int, view: int) -> np.random.Generator:
    """Return the random numbers of one view of one sample: the same in every process, order and epoch.

    Args:
        seed: of the run.
        sample: id of the sample.
        view: number of the view.

    Example:
        >>> first, again = counter_rng(0, 7, 1), counter_rng(0, 7, 1)
        >>> bool(first.random() == again.random())
        True

    Source:
        Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011 (Philox 4x64).
    """
    # Negative ids are as good as others: the counter is a word of 64 bits.
    words = np.array([0, 0, view, sample % 2**64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=seed % 2**64, counter=words))


def identity(augment: Augment | None) -> str:
    """Return what an augmentation is called, the same in every process (a function's own text holds its address).

    Example:
        >>> identity(shift_and_flip)
        'tersor.recovery.views.shift_and_flip'
    """
    if isinstance(augment, FunctionType):
        return f"{augment.__module__}.{augment.__qualname__}"
    return repr(augment)


@dataclass(frozen=True)
class Views:
    """A split seen through an augmentation, with a fixed number of views of each sample.

    A view is a sample of its own: its id is `id * views + view`, so that a cache of teacher outputs answers for
    exactly what the student sees. Which view a pass shows is drawn from the seed of its order.

    Attributes:
        split: the samples.
        augment: makes a view from stored inputs.
        views: number of different views of a sample, at least one.
        seed: of the views.

    Raises:
        ArgumentError: if `views` is not positive.

    Example:
        >>> from tersor.recovery.epochs import InMemory
        >>> images = InMemory(torch.zeros(4, 3, 8, 8), torch.arange(4))
        >>> view = next(Views(images, shift_and_flip, views=8).batches(4, shuffle=0))
        >>> [i // 8 for i in view.ids] == sorted(range(4), key=[i // 8 for i in view.ids].index)
        True
    """

    split: Split
    augment: Augment
    views: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        positive("views", self.views)

    @property
    def name(self) -> str:
        """That of the split."""
        return self.split.name

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, size: int, *, shuffle: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Yield augmented batches; the stored order (`shuffle=None`) shows view 0."""
        for batch in self.split.batches(size, shuffle=shuffle, limit=limit):
            chosen = [self._view(shuffle, sample) for sample in batch.ids]
            pairs = list(zip(batch.ids, chosen, strict=True))
            inputs = self.augment(batch.inputs, [counter_rng(self.seed, i, v) for i, v in pairs])
            yield Batch(inputs, batch.target, tuple(i * self.views + v for i, v in pairs))

    def _view(self, order: int | None, sample: int) -> int:
        return 0 if order is None else int(counter_rng(order, sample, -1 % 2**64).integers(self.views))


def shift_and_flip(inputs: Inputs, rngs: Sequence[np.random.Generator], padding: int = 4) -> Inputs:
    """Shift images by up to `padding` pixels over black, and flip half of them left to right.

    Args:
        inputs: every tensor of (batch, channels, height, width) in it is changed, others pass.
        rngs: one generator for each image.
        padding: largest shift.

    Example:
        >>> shift_and_flip((torch.zeros(1, 3, 8, 8),), [counter_rng(0, 0, 0)])[0].shape
        torch.Size([1, 3, 8, 8])
    """
    draws = [(*rng.integers(0, 2 * padding + 1, 2), rng.random() < 0.5) for rng in rngs]

    def move(images: Tensor) -> Tensor:
        if images.dim() != 4:
            return images
        height, width = images.shape[2:]
        padded = F.pad(images, [padding] * 4)
        moved = [padded[i, :, y : y + height, x : x + width] for i, (y, x, _) in enumerate(draws)]
        return torch.stack([m.flip(-1) if flip else m for m, (_, _, flip) in zip(moved, draws, strict=True)])

    return map_tensors(move, inputs)
