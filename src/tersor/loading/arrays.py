"""Tables and arrays in files: `.npz`, `.csv`, `.tsv`, and the sets bundled in scikit-learn."""

import csv
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from tersor._extras import require
from tersor.errors import DataError
from tersor.loading.archive import check_archive
from tersor.loading.references import first_line

_SKLEARN = ("digits", "breast_cancer", "wine", "diabetes")
_TRUE = ("1", "true", "yes", "")


def take_options(scheme: str, options: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    """Return `options` if all are known.

    Raises:
        DataError: naming the unknown option and those that exist.
    """
    names = tuple(known)
    unknown = [name for name in options if name not in names]
    if unknown:
        raise DataError(f"'{scheme}:' has no option {unknown[0]!r}; it takes {', '.join(names) or 'none'}.")
    return dict(options)


def existing(path: str) -> Path:
    """Return the file at `path`.

    Raises:
        DataError: if there is none.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise DataError(f"There is no data file {path!r} (looked from {str(Path.cwd())!r}).")
    return found


def read_sklearn(name: str, options: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Return a set bundled in scikit-learn as (x, y): digits as images (N, 1, 8, 8) in [0, 1], tables as they are.

    Options: `flat=true` gives digits as rows of 64; `standardize=true` gives columns mean 0 and deviation 1.
    """
    take_options("sklearn", options, ("flat", "standardize"))
    if name not in _SKLEARN:
        raise DataError(f"'sklearn:' bundles {', '.join(_SKLEARN)}, got {name!r}.")
    datasets = require("sklearn.datasets", extra="sklearn", purpose=f"The data 'sklearn:{name}'")
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = np.asarray(x, dtype=np.float32)
    if name == "digits":
        x = x / 16.0
        x = x if options.get("flat", "no") in _TRUE else x.reshape(-1, 1, 8, 8)
    if options.get("standardize", "no") in _TRUE:
        x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-12)
    return x, y


def read_npz(path: str, options: Mapping[str, str]) -> object:
    """Return the arrays of an `.npz` file; `x_train, y_train, x_test, y_test` (and `_val`) are explicit splits."""
    take_options("npz", options, ())
    file = existing(path)
    sizes = check_archive(file, DataError)
    try:
        with zipfile.ZipFile(file) as archive:
            for name, size in sizes.items():
                _check_header(archive, name, size)
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError, SyntaxError, TypeError) as cause:
        raise DataError(f"{file.name!r} is not a readable .npz of numbers: {first_line(cause)}") from cause
    if not arrays:
        raise DataError(f"{file.name!r} holds no array.")
    return _named_arrays(arrays)


def _check_header(archive: zipfile.ZipFile, name: str, size: int) -> None:
    """Refuse an array whose header promises more numbers than the entry holds, before memory is taken for it."""
    with archive.open(name) as entry:
        version = np.lib.format.read_magic(entry)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(entry)
    declared = dtype.itemsize
    for length in shape:
        declared *= length
    if dtype.hasobject:
        raise ValueError(f"the array {name!r} holds pickled objects, which would run code")
    if declared > size:
        raise ValueError(f"the array {name!r} declares {declared:,} bytes and holds {size:,}")


def _named_arrays(arrays: dict[str, np.ndarray]) -> object:
    lower = {name.lower(): array for name, array in arrays.items()}
    ends = {name.rpartition("_")[2] for name in lower}
    if len(lower) > 1 and all(name[:2] in ("x_", "y_") for name in lower):
        return {end: tuple(lower[k] for k in (f"x_{end}", f"y_{end}") if k in lower) for end in sorted(ends)}
    if set(lower) == {"x", "y"}:
        return lower["x"], lower["y"]
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def read_csv(path: str, options: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
    """Return a table with a header as (x, y); options `target=`, `drop=a,b`, `sep=`."""
    return _read_table(path, take_options("csv", options, ("target", "drop", "sep")), ",")


def read_tsv(path: str, options: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
    """Return a tab-separated table with a header as (x, y); options `target=`, `drop=a,b`."""
    return _read_table(path, take_options("tsv", options, ("target", "drop")), "\t")


def _read_table(
    path: str, options: Mapping[str, str], separator: str
) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
    file = existing(path)
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            header, *rows = csv.reader(lines, delimiter=options.get("sep", separator))
    except (ValueError, OSError, csv.Error, UnicodeDecodeError) as cause:
        raise DataError(f"{file.name!r} is not a readable table: {first_line(cause)}") from cause
    rows = [row for row in rows if row]
    uneven = next((i for i, row in enumerate(rows) if len(row) != len(header)), None)
    if not rows or uneven is not None:
        where = (
            "no row below its header" if uneven is None else f"{len(rows[uneven])} cells in row {uneven + 2}"
        )
        raise DataError(f"{file.name!r} has {len(header)} columns and {where}.")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return table(columns, file.name, options)


def table(
    columns: Mapping[str, list], file: str, options: Mapping[str, str]
) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
    """Return (x, y) of named columns: x float32 (rows, features), y numbers, or classes in sorted order for text.

    Raises:
        DataError: if a named column is missing, or a feature is text.
    """
    targets, dropped = _list(options.get("target")), _list(options.get("drop"))
    missing = [name for name in (*targets, *dropped) if name not in columns]
    if missing:
        raise DataError(f"{file!r} has no column {missing[0]!r}; its columns are {', '.join(columns)}.")
    features = [name for name in columns if name not in targets and name not in dropped]
    if not features:
        raise DataError(f"{file!r} has no column left besides the target and the dropped ones.")
    x = np.stack([_numbers(columns[name], name, file) for name in features], axis=1)
    if not targets:
        return x
    y = [_answers(columns[name]) for name in targets]
    return x, (y[0] if len(y) == 1 else np.stack(y, axis=1))


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _numbers(column: list, name: str, file: str) -> np.ndarray:
    try:
        return np.asarray([np.nan if v in ("", None) else v for v in column], dtype=np.float64).astype(
            np.float32
        )
    except (ValueError, TypeError) as cause:
        raise DataError(
            f"The column {name!r} of {file!r} holds text. Encode it as numbers, or leave it out with drop={name}."
        ) from cause


def _answers(column: list) -> np.ndarray:
    for kind in (np.int64, np.float64):
        try:
            return np.asarray(column, dtype=kind) if kind is np.float64 else _integers(column)
        except (ValueError, TypeError):
            continue
    return np.unique(np.asarray(column, dtype=str), return_inverse=True)[1]


def _integers(column: list) -> np.ndarray:
    if any(isinstance(v, float) for v in column):
        raise ValueError
    return np.asarray([int(v) for v in column], dtype=np.int64)
