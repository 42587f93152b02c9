"""Samples that appear in two splits, exactly or nearly: what a certificate must not rest on."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from scipy.fft import dctn

from tersor.errors import DataError
from tersor.loading.inputs import flatten
from tersor.loading.task import Split

Sample: TypeAlias = np.ndarray | str | bytes

#: Fingerprints of 64 bits that differ in at most so many are looked at closely.
_NEAR_BITS = 10
#: Correlation of arrays, and share of common words and pairs of words, from which on samples are near-duplicates.
_NEAR_CORRELATION, _NEAR_WORDS = 0.98, 0.7
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Overlap:
    """A sample of one split that is also in another.

    Attributes:
        first: index in the first split.
        second: index in the second split.
        exact: whether they are equal byte for byte, or only nearly.
    """

    first: int
    second: int
    exact: bool


def overlaps(first: Iterable[Sample], second: Iterable[Sample]) -> tuple[Overlap, ...]:
    """Return the samples of `first` that appear in `second`, exactly or as near-duplicates.

    Equal samples are found by their hash. Candidates for near-duplicates have similar 64-bit fingerprints: signs of
    the lowest frequencies for arrays, a similarity hash for text and token ids. They count if the arrays correlate
    by at least 0.98, or if 0.7 of all words and pairs of words are common. That survives noise, contrast,
    recompression and a changed word; not shifts, flips and rewording. Bytes are compared exactly.

    Args:
        first: samples: arrays (integers in one dimension are token ids), texts, or bytes.
        second: samples of the same kind.

    Returns:
        One overlap, the closest, for each sample of `first` that has any, in their order.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = rng.random((5, 16, 16))
        >>> overlaps(images[:3], [images[2], images[0] * 0.9 + 0.01, images[4]])
        (Overlap(first=0, second=1, exact=False), Overlap(first=2, second=0, exact=True))

    Source:
        Zauner, Implementation and benchmarking of perceptual image hash functions, 2010, section 3.2.1 (arrays);
        Charikar, Similarity estimation techniques from rounding algorithms, STOC 2002, section 3 (text).
    """
    ours, theirs = list(first), list(second)
    places = {_digest(sample): place for place, sample in reversed(list(enumerate(theirs)))}
    found: dict[int, Overlap] = {}
    for number, sample in enumerate(ours):
        place = places.get(_digest(sample))
        if place is not None:
            found[number] = Overlap(number, place, True)
    for number, place in _similar(ours, theirs):
        if number not in found and _near(ours[number], theirs[place]):
            found[number] = Overlap(number, place, False)
    return tuple(found[number] for number in sorted(found))


def check_disjoint(splits: Iterable[Split]) -> None:
    """Raise if two splits share a sample, exactly or nearly. The first input tensor is compared, labels are not.

    Args:
        splits: the splits of a task; this reads the certification split itself, not through a seal.

    Raises:
        DataError: naming the first two splits that overlap, the number of shared samples and the first of them.
    """
    samples = [(split.name, list(samples_of(split))) for split in splits]
    for (name, ours), (other, theirs) in combinations(samples, 2):
        found = overlaps(ours, theirs)
        if found:
            exact = sum(overlap.exact for overlap in found)
            raise DataError(
                f"{len(found)} of {len(ours)} {name} samples are also in {other} ({exact} exactly, "
                f"{len(found) - exact} nearly; the first is {name} {found[0].first} = {other} {found[0].second}). "
                "A certificate on data that was seen before means nothing: remove them, or let tersor split the data "
                "by content."
            )


def fingerprint(sample: Sample) -> int | None:
    """Return 64 bits that slight changes of a sample keep, or None for one without structure (or of bytes).

    Example:
        >>> image = np.random.default_rng(0).random((3, 32, 32))
        >>> fingerprint(image) == fingerprint(image * 1.5 + 2)
        True
    """
    if isinstance(sample, bytes):
        return None
    return (
        _text_bits(_features(sample))
        if _is_text(sample)
        else _array_bits(np.asarray(sample, dtype=np.float64))
    )


def _is_text(sample: Sample) -> bool:
    return isinstance(sample, str) or (
        isinstance(sample, np.ndarray) and sample.ndim == 1 and np.issubdtype(sample.dtype, np.integer)
    )


def _features(sample: Sample) -> frozenset[str]:
    """Return the words, or token ids, and the pairs of neighbouring ones."""
    words = (
        re.findall(r"\w+", sample.casefold()) if isinstance(sample, str) else [str(token) for token in sample]
    )
    return frozenset((*words, *(f"{a} {b}" for a, b in pairwise(words))))


def _text_bits(features: Iterable[str]) -> int | None:
    digests = [hashlib.blake2b(feature.encode(), digest_size=8).digest() for feature in features]
    if not digests:
        return None
    bits = np.unpackbits(np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 8), axis=1)
    return _pack(2 * bits.sum(axis=0, dtype=np.int64) > len(digests))


def _array_bits(values: Float[np.ndarray, "..."]) -> int | None:
    """Return the signs, relative to their median, of the lowest frequencies over the two longest axes."""
    longest = sorted(range(values.ndim), key=lambda axis: -values.shape[axis])[:2]
    plane = np.atleast_2d(values.mean(axis=tuple(axis for axis in range(values.ndim) if axis not in longest)))
    if plane.size < 2 or not np.isfinite(plane).all() or np.ptp(plane) == 0:
        return None
    frequencies = np.asarray(dctn(plane, norm="ortho"))
    rows, columns = np.indices(plane.shape)
    order = np.lexsort((rows.ravel(), columns.ravel(), (rows + columns).ravel()))
    low = frequencies.ravel()[order[1:65]]
    return _pack(low > np.median(low))


def _pack(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _digest(sample: Sample) -> bytes:
    if isinstance(sample, np.ndarray):
        content = f"{sample.dtype}{sample.shape}".encode() + np.ascontiguousarray(sample).tobytes()
    else:
        content = sample.encode() if isinstance(sample, str) else sample
    return hashlib.blake2b(content, digest_size=16).digest()


def _similar(ours: Sequence[Sample], theirs: Sequence[Sample]) -> Iterator[tuple[int, int]]:
    """Yield the pairs with similar fingerprints, the closest first for each of ours."""
    (mine, our_bits), (others, their_bits) = _fingerprints(ours), _fingerprints(theirs)
    for start in range(0, len(mine), _CHUNK):
        distance = np.bitwise_count(our_bits[start : start + _CHUNK, None] ^ their_bits)
        rows, columns = np.nonzero(distance <= _NEAR_BITS)
        for hit in np.argsort(distance[rows, columns], kind="stable"):
            yield int(mine[start + rows[hit]]), int(others[columns[hit]])


def _fingerprints(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the samples that have a fingerprint, and the fingerprints."""
    found = [
        (number, bits) for number, sample in enumerate(samples) if (bits := fingerprint(sample)) is not None
    ]
    numbers, bits = zip(*found, strict=True) if found else ((), ())
    return np.array(numbers, dtype=np.int64), np.array(bits, dtype=np.uint64)


def _near(ours: Sample, theirs: Sample) -> bool:
    if _is_text(ours):
        a, b = _features(ours), _features(theirs)
        return len(a & b) >= _NEAR_WORDS * len(a | b)
    a, b = (np.asarray(sample, dtype=np.float64).ravel() for sample in (ours, theirs))
    return a.shape == b.shape and bool(np.corrcoef(a, b)[0, 1] >= _NEAR_CORRELATION)


def samples_of(split: Split) -> Iterator[np.ndarray]:
    """Yield the first input of every sample of a split, as an array."""
    for batch in split.batches(256):
        tensor = flatten(batch.inputs)[0].detach().cpu()
        yield from (tensor.float() if tensor.is_floating_point() else tensor).numpy()
