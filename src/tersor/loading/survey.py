"""One cheap pass over the data: a fingerprint of each sample, the range of the targets, and what is broken."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tersor.errors import DataError
from tersor.loading.binding import Binding
from tersor.loading.inputs import Inputs, flatten
from tersor.loading.sources import Places, Source, Stream

#: Target value that losses skip, by PyTorch's convention.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What is known of all targets of a data set.

    Attributes:
        shape: of one sample's target in the first batch.
        floating: whether they came as floating-point numbers.
        low: smallest value, `IGNORED` entries left out.
        high: largest value.
        whole: whether every value is an integer.
        one_hot: whether every target is a row of zeros with a single one.
    """

    shape: tuple[int, ...]
    floating: bool
    low: float
    high: float
    whole: bool
    one_hot: bool

    @property
    def binary(self) -> bool:
        """Whether every value is 0 or 1."""
        return self.whole and self.low >= 0 and self.high <= 1

    def __or__(self, other: "TargetFacts") -> "TargetFacts":
        return TargetFacts(
            self.shape,
            self.floating or other.floating,
            min(self.low, other.low),
            max(self.high, other.high),
            self.whole and other.whole,
            self.one_hot and other.one_hot,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What one pass over a source found.

    Attributes:
        digests: 64-bit fingerprint of each sample's inputs, shape (samples,), in the order of the source.
        labels: class of each sample, shape (samples,), where there is one class a sample; else None.
        targets: facts about the targets; None without labels.
        spans: smallest and largest target of each sample, shape (samples, 2); None without labels.
        changing: whether samples differ between two reads (random augmentation); digests are then of positions.
    """

    digests: np.ndarray
    labels: np.ndarray | None
    targets: TargetFacts | None
    spans: np.ndarray | None = None
    changing: bool = False

    def __len__(self) -> int:
        return len(self.digests)


def fingerprints(inputs: Inputs) -> np.ndarray:
    """Return a 64-bit BLAKE2b hash of each sample's values, shapes and types, shape (samples,), dtype uint64.

    Example:
        >>> a, b, c = fingerprints((torch.tensor([[1.0], [2.0], [1.0]]),))
        >>> a == c, a == b
        (np.True_, np.False_)
    """
    tensors = flatten(inputs)
    header = repr([(str(t.dtype), tuple(t.shape[1:])) for t in tensors]).encode()
    columns = [_bytes(t) for t in tensors]
    found = np.empty(len(tensors[0]), dtype=np.uint64)
    for i in range(len(found)):
        state = hashlib.blake2b(header, digest_size=8)
        for column in columns:
            state.update(column[i])
        found[i] = int.from_bytes(state.digest(), "little")
    return found


def _bytes(tensor: Tensor) -> np.ndarray:
    flat = tensor.detach().cpu().contiguous().reshape(len(tensor), math.prod(tensor.shape[1:]))
    return (
        np.ascontiguousarray(flat.view(torch.uint8).numpy())
        if flat.shape[1]
        else np.empty((len(flat), 0), np.uint8)
    )


@dataclass(slots=True)
class _Tally:
    """Accumulates a `Survey`."""

    digests: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] | None = field(default_factory=list)
    targets: TargetFacts | None = None
    spans: list[np.ndarray] = field(default_factory=list)
    seen: int = 0

    def add(self, inputs: Inputs, target: Tensor | None, binding: Binding) -> None:
        _refuse_nonfinite(inputs, target, self.seen, binding)
        self.digests.append(fingerprints(inputs))
        self.seen += len(self.digests[-1])
        if target is None:
            self.labels = None
            return
        facts = _facts(target)
        self.targets = facts if self.targets is None else self.targets | facts
        flat = target.reshape(len(target), -1).to(torch.float64)
        self.spans.append(torch.stack([flat.amin(dim=1), flat.amax(dim=1)], dim=1).numpy())
        classes = None if self.labels is None else _classes(target)
        if classes is None:
            self.labels = None
        elif self.labels is not None:
            self.labels.append(classes)


def survey(source: Source, binding: Binding, name: str) -> Survey:
    """Read every sample of `source` once.

    Args:
        source: the data.
        binding: how its batches become inputs and a target.
        name: what to call the data in messages.

    Returns:
        What was found.

    Raises:
        DataError: if the data is empty, has NaN or infinite numbers in it, or a stream differs between two walks.
    """
    tally = _Tally()
    for batch in walk(source):
        inputs, target = binding.bind(batch)
        tally.add(inputs, target, binding)
    if not tally.seen:
        raise DataError(f"The {name} data is empty. Check the path, the filter or the slice that makes it.")
    digests = np.concatenate(tally.digests)
    again = next(iter(walk(source)))
    changing = not np.array_equal(fingerprints(binding.bind(again)[0]), tally.digests[0])
    if changing and isinstance(source, Stream):
        raise DataError(
            f"The {name} stream gives other samples on its second walk. Turn off shuffling and random augmentation, or "
            "pass a dataset with a length and an index."
        )
    if changing:
        digests = fingerprints((torch.arange(len(digests)),))
    labels = np.concatenate(tally.labels) if tally.labels else None
    spans = np.concatenate(tally.spans) if tally.spans else None
    return Survey(digests, labels, tally.targets, spans, changing)


def walk(source: Source) -> Iterator[object]:
    """Yield the batches of `source` in its own order, cut so that a sample's content is its own."""
    if isinstance(source, Places):
        step = source.together
        for start in range(0, len(source), step):
            yield source.fetch(range(start, min(start + step, len(source))))
    else:
        yield from source.batches()


def _refuse_nonfinite(inputs: Inputs, target: Tensor | None, offset: int, binding: Binding) -> None:
    named = list(zip((name for _, name in binding.arguments), flatten(inputs), strict=True))
    for name, tensor in [*named, *([] if target is None else [("target", target)])]:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            bad = ~torch.isfinite(tensor.reshape(len(tensor), -1)).all(dim=1)
            raise DataError(
                f"{int(bad.sum())} of the samples {offset} to {offset + len(tensor) - 1} hold NaN or infinite numbers "
                f"in {name!r}, first sample {offset + int(bad.nonzero()[0])}. Fill or drop them."
            )


def _facts(target: Tensor) -> TargetFacts:
    floating = target.is_floating_point()
    values = target if floating else target[target != IGNORED]
    if not values.numel():
        return TargetFacts(tuple(target.shape[1:]), floating, np.inf, -np.inf, True, False)
    low, high = float(values.min()), float(values.max())
    whole = not floating or bool((values == values.round()).all())
    rows = target.ndim == 2 and target.shape[1] > 1 and whole and low >= 0 and high <= 1
    one_hot = rows and bool((target.sum(dim=1) == 1).all())
    return TargetFacts(tuple(target.shape[1:]), floating, low, high, whole, one_hot)


def _classes(target: Tensor) -> np.ndarray | None:
    """Return one class a sample where the batch has that form."""
    if target.ndim == 2 and target.shape[1] > 1:
        return target.argmax(dim=1).numpy() if _facts(target).one_hot else None
    if math.prod(target.shape[1:]) != 1:
        return None
    column = target.reshape(len(target))
    counted = not column.is_floating_point() or bool(((column == 0) | (column == 1)).all())
    return column.to(torch.int64).numpy() if counted else None
