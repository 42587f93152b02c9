"""Arrays in files (`.npz`), and the sets bundled in scikit-learn."""

import zipfile
from collections.abc import Mapping

import numpy as np

from tersor._extras import require
from tersor.errors import DataError
from tersor.loading.archive import check_archive
from tersor.loading.options import existing, is_on, take_options
from tersor.loading.references import first_line

_SKLEARN = ("digits", "breast_cancer", "wine", "diabetes")


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
        x = x if is_on(options, "flat") else x.reshape(-1, 1, 8, 8)
    if is_on(options, "standardize"):
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
    except Exception as cause:  # on damaged bytes zipfile, zlib and numpy each raise their own
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
