"""Inputs drawn at random, where there is no data: `random:3x32x32`, the same in every process."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tersor._check import one_of
from tersor.errors import ArgumentError, DataError
from tersor.loading.options import take_options

#: Inputs that are drawn where nothing else is said: enough to certify a drop of one point.
SAMPLES = 2000
#: Name of the only part that drawn inputs make; it is divided into search and certification.
PART = "drawn"
#: Types of elements, with their range where none is given. Floats without one are standard normal; integers are 0 or
#: 1, which any vocabulary has.
_TYPES: dict[str, tuple[int, int] | None] = {
    "float32": None, "float64": None, "float16": None, "int64": (0, 1), "int32": (0, 1), "int16": (0, 1),
    "int8": (0, 1), "uint8": (0, 255), "bool": (0, 1),
}  # fmt: skip
_NUMBER = r"-?\d+(?:\.\d+)?"
_SPEC = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)=)?(?:(?P<dtype>[a-z]+\d+|bool):)?(?P<shape>scalar|\d+(?:x\d+)*)"
    rf"(?::(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER}))?"
)
#: Most samples, and most numbers in one of them.
_MOST, _LARGEST = 10_000_000, 2**31


@dataclass(frozen=True, slots=True)
class DrawnInput:
    """One input of a model, drawn at random.

    Attributes:
        name: of the argument of `forward`; empty where the place says it.
        dtype: type of the elements, of NumPy.
        shape: of one sample, without the batch.
        span: smallest and largest value, every value between them as likely; None for the standard normal distribution.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    span: tuple[float, float] | None = None

    def draw(self, seed: int, place: int, index: int) -> np.ndarray:
        """Return this input of sample `index`; it depends on nothing but seed, place of the input and index."""
        # A generator that counts needs no other sample before this one: any process draws any sample.
        bits = np.random.Philox(key=np.array([seed, place], np.uint64), counter=[0, 0, index, 0])
        rng = np.random.Generator(bits)
        if self.span is None:
            return np.asarray(rng.standard_normal(self.shape, np.float32), self.dtype)
        low, high = self.span
        if self.dtype.startswith("float"):
            return np.asarray(low + (high - low) * rng.random(self.shape, np.float32), self.dtype)
        return np.asarray(rng.integers(int(low), int(high), self.shape, endpoint=True), self.dtype)

    def __str__(self) -> str:
        words = "x".join(map(str, self.shape)) or "scalar"
        words = words if self.dtype == "float32" else f"{self.dtype}:{words}"
        span = "" if self.span is None else f":{self.span[0]:.9g}..{self.span[1]:.9g}"
        return f"{self.name}={words}{span}" if self.name else words + span


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A source whose samples are drawn when they are read, so that they take no memory.

    Attributes:
        inputs: what a sample holds.
        size: number of samples.
        seed: of the draw.
        together: samples that are best fetched at once.
    """

    inputs: tuple[DrawnInput, ...]
    size: int = SAMPLES
    seed: int = 0
    together: int = 64

    def __len__(self) -> int:
        return self.size

    @property
    def reference(self) -> str:
        """What draws the same inputs again."""
        return f"{as_reference(self.inputs)}?samples={self.size}&seed={self.seed}"

    def fetch(self, indices: Sequence[int]) -> Any:
        """Return the samples at `indices`: a tensor, a tuple of several inputs, or a mapping of named ones."""
        columns = [
            torch.from_numpy(np.stack([one.draw(self.seed, place, int(i)) for i in indices]))
            for place, one in enumerate(self.inputs)
        ]
        if self.inputs[0].name:
            return {one.name: column for one, column in zip(self.inputs, columns, strict=True)}
        # A tuple in a tuple: its last element is an input as well, and no target.
        return columns[0] if len(columns) == 1 else (tuple(columns),)


def as_reference(inputs: Sequence[DrawnInput]) -> str:
    """Return the data reference that draws `inputs`.

    Example:
        >>> as_reference([DrawnInput("ids", "int64", (16,), (0, 999)), DrawnInput("image", "float32", (3, 8, 8))])
        'random:ids=int64:16:0..999,image=3x8x8'
    """
    return f"random:{','.join(map(str, inputs))}"


def read_random(specs: str, options: Mapping[str, str]) -> Drawn:
    """Return inputs of the given shapes, drawn at random.

    Each input is `[name=][dtype:]SHAPE[:LOW..HIGH]` with the shape of one sample; commas stand between several. Floats
    are standard normal, or uniform in a range; integers are uniform in a range, 0 to 1 where none is given.

    Options: `samples=2000`, how many; `seed=0`, of the draw.

    Raises:
        DataError: if a text is not of this form.

    Example:
        >>> read_random("3x8x8", {"samples": "4"}).fetch([0, 3]).shape
        torch.Size([2, 3, 8, 8])
        >>> read_random("ids=int64:16:0..999,mask=int64:16:1..1", {}).fetch([7])["mask"].sum()
        tensor(16)
    """
    take_options("random", options, ("samples", "seed"))
    inputs = tuple(map(_parsed, specs.split(",")))
    names = [one.name for one in inputs]
    if any(names) and (not all(names) or len(set(names)) < len(names)):
        raise DataError(f"'random:{specs}': give either every input a name of its own or none.")
    size = _whole(options, "samples", SAMPLES, _MOST)
    if not size:
        raise DataError(
            "'random:' draws at least one sample; leave the option 'samples' out for the usual number."
        )
    return Drawn(inputs, size, _whole(options, "seed", 0, 2**64 - 1))


def _parsed(spec: str) -> DrawnInput:
    match = _SPEC.fullmatch(spec)
    sizes = [] if match is None or match["shape"] == "scalar" else [int(n) for n in match["shape"].split("x")]
    if match is None or not 0 < np.prod(sizes, dtype=np.float64) < _LARGEST:
        raise DataError(
            "'random:' takes [name=][dtype:]SHAPE[:LOW..HIGH] for each input, the shape of one sample without the "
            f"batch, such as random:3x224x224 or random:input_ids=int64:128:0..30521, got {spec!r}."
        )
    try:
        dtype = one_of("dtype", match["dtype"] or "float32", _TYPES)
    except ArgumentError as cause:
        raise DataError(str(cause)) from cause
    span = _TYPES[dtype] if match["low"] is None else (float(match["low"]), float(match["high"]))
    if span is not None:
        _check_span(spec, dtype, span)
    return DrawnInput(match["name"] or "", dtype, tuple(sizes), span)


def _check_span(spec: str, dtype: str, span: tuple[float, float]) -> None:
    low, high = span
    whole = not dtype.startswith("float")
    least, most = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max) if whole else span
    if not least <= low <= high <= most or (whole and (low % 1 or high % 1)):
        raise DataError(
            f"{low:g}..{high:g} of {spec!r} is no range of {dtype}: the lower end comes first, and both are values of "
            "that type."
        )


def _whole(options: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = options.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) > most:
        raise DataError(f"The option {name!r} of 'random:' is a whole number up to {most}, got {text!r}.")
    return int(text)


def refuse_mixture(parts: Mapping[str, object]) -> str:
    """Return the reference of drawn inputs, or an empty text for data; drawn inputs stand alone.

    Raises:
        DataError: if they are given as one of several splits, or as a split of a name.
    """
    found = [source for source in parts.values() if isinstance(source, Drawn)]
    if not found:
        return ""
    if set(parts) != {PART}:
        raise DataError(
            "Inputs drawn at random are no split of data: a certificate would not say which of the two it is about. "
            f"Give data='{found[0].reference}' alone, or data of your own for every split."
        )
    return found[0].reference
