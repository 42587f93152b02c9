"""Data in files and built-in sets, named by a reference `scheme:path?option=value&option=value`."""

from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from tersor.errors import DataError
from tersor.loading.arrays import read_npz, read_sklearn
from tersor.loading.drawn import read_random
from tersor.loading.hub_data import read_hub
from tersor.loading.images import read_folder, read_parquet
from tersor.loading.tables import read_csv, read_tsv

_READERS: dict[str, Callable[[str, Mapping[str, str]], object]] = {
    "npz": read_npz,
    "csv": read_csv,
    "tsv": read_tsv,
    "parquet": read_parquet,
    "imagefolder": read_folder,
    "hf": read_hub,
    "sklearn": read_sklearn,
    "random": read_random,
}


def is_file_reference(reference: str) -> bool:
    """Return whether `reference` starts with the name of a file format, such as `csv:`."""
    return reference.partition(":")[0] in _READERS


def read_files(reference: str) -> object:
    """Return the data that a file reference names, in a form that `load_data` takes.

    Raises:
        DataError: if the file is missing, damaged or too large, or an option is unknown.
    """
    scheme, _, rest = reference.partition(":")
    path, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not path:
        raise DataError(
            f"{reference!r} names no file. Write '{scheme}:FILE' or '{scheme}:FILE?option=value'."
        )
    return _READERS[scheme](path, options)
