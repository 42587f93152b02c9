"""CIFAR-10 from two parquet files, normalised as the network was trained.

The folder is taken from the environment variable CIFAR10, or ../shared/data/cifar10 beside the repository.
"""

import io
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet
from PIL import Image

FOLDER = Path(
    os.environ.get("CIFAR10", Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cifar10")
)
MEAN = np.array([125.3, 123.0, 113.9], np.float32)
STD = np.array([63.0, 62.1, 66.7], np.float32)


def read(name: str, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return images (samples, 3, 32, 32) in float32 and labels in int64 of rows `start` to `stop`."""
    table = pyarrow.parquet.read_table(FOLDER / name).slice(start, None if stop is None else stop - start)
    column = "image" if "image" in table.column_names else "img"
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table[column].to_pylist()])
    images = ((pixels.astype(np.float32) - MEAN) / STD).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), table["label"].to_numpy().astype(np.int64)


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the rows the network was trained on, its validation rows to search with, and the untouched test set."""
    return {
        "train": read("train.parquet", 0, 45_000),
        "search": read("train.parquet", 45_000, 50_000),
        "certification": read("test.parquet"),
    }
