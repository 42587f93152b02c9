"""Tables larger than memory: parquet files read piece by piece, every walk from the start."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tersor._extras import require
from tersor.errors import DataError
from tersor.loading.references import first_line
from tersor.loading.sources import Stream

#: Rows that are in memory at a time.
_ROWS = 4096


def stream_parquet(files: Sequence[Path], options: Mapping[str, str]) -> Stream:
    """Return the rows of parquet files as a stream of (features float32, target) batches.

    Classes must be numbers: to number texts, all of them would have to be seen first.

    Args:
        files: with the same columns.
        options: `target` (one column) and `drop`.

    Raises:
        DataError: if a file is damaged, a column is missing, or a feature is text.
    """
    parquet = require("pyarrow.parquet", extra="parquet", purpose=f"Reading {files[0].name!r}")
    try:
        known = parquet.read_schema(files[0]).names
    except Exception as cause:  # damaged files raise errors of many kinds
        raise DataError(f"{files[0].name!r} is not a readable parquet file: {first_line(cause)}") from cause
    dropped = options["drop"].split(",") if options.get("drop") else []
    for name in (*dropped, *([options["target"]] if "target" in options else [])):
        if name not in known:
            raise DataError(f"{files[0].name!r} has no column {name!r}; its columns are {', '.join(known)}.")
    features = [name for name in known if name not in dropped and name != options.get("target")]
    return Stream(lambda: _batches(parquet, files, features, options.get("target")), batched=True)


def _batches(parquet: Any, files: Sequence[Path], features: list[str], target: str | None) -> Iterator[Any]:
    for file in files:
        try:
            pieces = parquet.ParquetFile(file).iter_batches(
                batch_size=_ROWS, columns=[*features, *([target] if target else [])]
            )
            for piece in pieces:
                x = np.stack([_numbers(piece.column(name), name, file) for name in features], axis=1)
                yield (x, _answers(piece.column(target), target, file)) if target else (x,)
        except DataError:
            raise
        except Exception as cause:  # likewise
            raise DataError(f"{file.name!r} is not a readable parquet file: {first_line(cause)}") from cause


def _numbers(column: Any, name: str, file: Path) -> np.ndarray:
    try:
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64).astype(np.float32)
    except (ValueError, TypeError) as cause:
        raise DataError(
            f"The column {name!r} of {file.name!r} holds text. Encode it as numbers, or leave it out with drop={name}."
        ) from cause


def _answers(column: Any, name: str, file: Path) -> np.ndarray:
    found = column.to_numpy(zero_copy_only=False)
    if found.dtype.kind not in "biuf":
        raise DataError(
            f"The target {name!r} of {file.name!r} holds {found.dtype}, and a stream takes numbers. Number the classes."
        )
    return np.array(found)
