"""Images in folders and parquet files, decoded to numbers that a model takes."""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tersor._extras import require
from tersor.errors import DataError
from tersor.loading.options import is_on, numbers, take_options
from tersor.loading.streams import stream_parquet
from tersor.loading.tables import (
    TABLE_OPTIONS,
    answers_of,
    parquet_columns,
    parquet_files,
    read_parquet_table,
)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff")
#: Folders of these names are splits, not classes.
_SPLITS = ("train", "val", "valid", "validation", "test")
#: How images are made of equal size and range.
IMAGE_OPTIONS = ("size", "mean", "std")
#: Decoded sets up to this many bytes are kept in memory.
_KEPT_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Encoded images with their labels; a sample is ((pixel / 255) - mean) / std, float32 (channels, height, width).

    Attributes:
        encoded: files, or the bytes of files.
        labels: class numbers, shape (samples,); None without.
        mode: `L` for one channel, `RGB` for three.
        size: (height, width) to resize to; None keeps each image's own.
        mean: of each channel, in units of the largest pixel value.
        std: likewise.
        decoded: all images as bytes (samples, channels, height, width), where they fit in memory.
    """

    encoded: Sequence[Path | bytes]
    labels: np.ndarray | None
    mode: str
    size: tuple[int, int] | None
    mean: Tensor
    std: Tensor
    decoded: Tensor | None = None
    together: int = 64

    def __len__(self) -> int:
        return len(self.encoded)

    def fetch(self, indices: Sequence[int]) -> Any:
        """Return (images, labels) at `indices`, or the images alone without labels.

        Raises:
            DataError: if an image is damaged, or sizes differ.
        """
        pixels = self.pixels(indices) if self.decoded is None else self.decoded[list(indices)]
        images = (pixels.to(torch.float32) / 255 - self.mean) / self.std
        return images if self.labels is None else (images, torch.from_numpy(self.labels[list(indices)]))

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """Decode the images at `indices` to bytes, shape (samples, channels, height, width)."""
        found = [torch.from_numpy(_decode(self.encoded[i], self.mode, self.size, int(i))) for i in indices]
        if len({f.shape for f in found}) > 1:
            a, b = sorted({tuple(f.shape[1:]) for f in found})[:2]
            raise DataError(
                f"Images have different sizes, {a} and {b} (height, width); give one with size=H,W."
            )
        return torch.stack(found)


def _decode(encoded: Path | bytes, mode: str, size: tuple[int, int] | None, index: int) -> np.ndarray:
    pillow = require("PIL.Image", extra="parquet", purpose="Reading images")
    image = _opened(encoded, index).convert(mode)
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], pillow.Resampling.BILINEAR)
    array = np.array(image, dtype=np.uint8)
    return array.reshape(*array.shape[:2], -1).transpose(2, 0, 1).copy()


def _opened(encoded: Path | bytes, index: int) -> Any:
    """Return the loaded image, or raise a `DataError` for a damaged one and for a bomb."""
    pillow = require("PIL.Image", extra="parquet", purpose="Reading images")
    damage = (
        OSError,
        ValueError,
        SyntaxError,
        pillow.DecompressionBombError,
        pillow.DecompressionBombWarning,
    )
    try:
        # A file of some kilobytes that unfolds to a hundred megapixels is no training sample.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            image = pillow.open(io.BytesIO(encoded if isinstance(encoded, bytes) else encoded.read_bytes()))
            image.load()
    except damage as cause:
        name = encoded.name if isinstance(encoded, Path) else f"image {index}"
        raise DataError(f"{name!r} is not a readable image ({type(cause).__name__}).") from cause
    return image


def make_images(
    encoded: Sequence[Path | bytes], labels: np.ndarray | None, options: Mapping[str, str]
) -> Images:
    """Return images as a source; small sets are decoded once.

    Args:
        encoded: files or their bytes.
        labels: class numbers.
        options: `size=H,W` (or one number for both), `mean=` and `std=` with a number for each channel.

    Raises:
        DataError: if there are none, one is damaged, or an option does not fit.
    """
    if not encoded:
        raise DataError(f"There are no images; files end in {', '.join(_SUFFIXES)}.")
    first = _opened(encoded[0], 0)
    mode = "L" if first.mode in ("1", "L") else "RGB"
    size = _size(options)
    channels = 1 if mode == "L" else 3
    mean, std = (
        _channels(options, name, default, channels) for name, default in (("mean", 0.0), ("std", 1.0))
    )
    images = Images(encoded, labels, mode, size, mean, std)
    height, width = size or first.size[::-1]
    if len(encoded) * channels * height * width > _KEPT_BYTES:
        return images
    decoded = torch.cat(
        [images.pixels(range(i, min(i + 64, len(images)))) for i in range(0, len(images), 64)]
    )
    return Images(encoded, labels, mode, size, mean, std, decoded)


def _size(options: Mapping[str, str]) -> tuple[int, int] | None:
    given = [int(n) for n in numbers(options, "size", ())]
    if not given:
        return None
    if len(given) > 2 or not all(0 < n <= 16_384 for n in given):
        raise DataError(f"The option 'size' takes a height and a width in pixels, got {options['size']!r}.")
    return given[0], given[-1]


def _channels(options: Mapping[str, str], name: str, default: float, channels: int) -> Tensor:
    given = numbers(options, name, (default,))
    above = ", above 0" if name == "std" else ""
    if len(given) not in (1, channels) or (name == "std" and min(given) <= 0):
        raise DataError(f"The option {name!r} takes one number or {channels}{above}, got {options[name]!r}.")
    return torch.tensor(given, dtype=torch.float32).reshape(-1, 1, 1)


def read_folder(path: str, options: Mapping[str, str]) -> object:
    """Return a folder with one sub-folder a class; sub-folders train, val and test of such folders are splits."""
    take_options("imagefolder", options, IMAGE_OPTIONS)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"There is no folder {path!r} (looked from {str(Path.cwd())!r}).")
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    splits = [p for p in inside if p.name in _SPLITS]
    roots = splits if splits and len(splits) == len(inside) else [folder]
    classes = sorted(
        {p.name for root in roots for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")}
    )
    if not classes:
        raise DataError(f"{path!r} holds no sub-folders; images of class c go into {path}/c/.")
    made = {root.name: _of_classes(root, classes, options) for root in roots}
    return made if roots is splits else made[folder.name]


def _of_classes(root: Path, classes: list[str], options: Mapping[str, str]) -> Images:
    files = [
        (file, number)
        for number, name in enumerate(classes)
        for file in sorted((root / name).rglob("*"))
        if file.suffix.lower() in _SUFFIXES and file.is_file()
    ]
    return make_images([file for file, _ in files], np.array([n for _, n in files], dtype=np.int64), options)


def read_parquet(path: str, options: Mapping[str, str]) -> object:
    """Return parquet: images and labels with `image=` and `label=`, else a table as `csv:` gives it.

    A folder stands for all its parquet files. `stream=yes` reads a table in pieces, for what is larger than memory.
    """
    files = parquet_files(path)
    if is_on(options, "stream"):
        return stream_parquet(files, take_options("parquet", options, ("stream", "target", "drop")))
    if "image" not in options:
        return read_parquet_table(files, take_options("parquet", options, ("stream", *TABLE_OPTIONS)))
    take_options("parquet", options, ("image", "label", "stream", *IMAGE_OPTIONS))
    names = [options["image"], *([options["label"]] if "label" in options else [])]
    columns = parquet_columns(files, names)
    labels = answers_of(columns[options["label"]]) if "label" in options else None
    return make_images([image_bytes(cell, path) for cell in columns[options["image"]]], labels, options)


def image_bytes(cell: Any, name: str) -> bytes:
    """Return the bytes of an image in a cell of a table.

    Raises:
        DataError: if the cell holds none.
    """
    # Hugging Face stores an image as {bytes, path}.
    found = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not isinstance(found, bytes):
        raise DataError(
            f"The image column of {name!r} holds {type(found).__name__}, not the bytes of images."
        )
    return found
