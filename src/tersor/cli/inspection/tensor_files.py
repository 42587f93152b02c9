"""Files of arrays alone: safetensors by its header, `.npy` and `.npz` by theirs."""

import json
import struct
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from tersor.cli.inspection.findings import Content, Safety, TensorEntry
from tersor.errors import DataError
from tersor.loading.archive import check_archive

#: The format's own limit for a header.
_HEADER_BYTES = 100_000_000


def safetensors_file(path: Path) -> Content:
    """Read the header of a safetensors file and check that it fits the file."""
    kind = "safetensors"
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_HEADER_BYTES, path.stat().st_size - 8):
                raise ValueError(f"its header claims {length:,} bytes")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        tensors = tuple(
            TensorEntry(name, entry["dtype"], tuple(map(int, entry["shape"])))
            for name, entry in header.items()
        )
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        return Content(kind=kind, safety=Safety.BROKEN, reasons=(f"The header cannot be read: {error}.",))
    if 8 + length + end > path.stat().st_size:
        return Content(
            kind=kind, safety=Safety.BROKEN, reasons=("The file is shorter than its header says.",)
        )
    facts = {str(key): str(value)[:200] for key, value in metadata.items()}
    return Content(
        kind=kind, safety=Safety.DATA, facts=facts, tensors=tensors, advice=f"--weights {path.name}"
    )


def npy_file(path: Path) -> Content:
    """Read the header of an array."""
    with path.open("rb") as file:
        return _arrays("NumPy array", [_header(path.stem, file)], f"npz:{path.name}")


def npz_file(path: Path) -> Content:
    """Read the header of every array of an archive."""
    try:
        check_archive(path, DataError)
    except DataError as error:
        return Content(kind="NumPy archive", safety=Safety.BROKEN, reasons=(str(error),))
    entries = []
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                entries.append(_header(name.removesuffix(".npy"), file))
    return _arrays("NumPy archive", entries, f"npz:{path.name}")


def _arrays(kind: str, entries: list[TensorEntry | str], advice: str) -> Content:
    broken = tuple(entry for entry in entries if isinstance(entry, str))
    tensors = tuple(entry for entry in entries if isinstance(entry, TensorEntry))
    objects = [entry.name for entry in tensors if "O" in entry.dtype]
    if broken:
        return Content(kind=kind, safety=Safety.BROKEN, reasons=broken, tensors=tensors)
    if objects:
        reason = f"{', '.join(objects[:4])} hold Python objects, which are stored as pickles."
        return Content(kind=kind, safety=Safety.CODE, reasons=(reason,), tensors=tensors)
    return Content(kind=kind, safety=Safety.DATA, tensors=tensors, advice=f"--data {advice}")


def _header(name: str, file: IO[bytes]) -> TensorEntry | str:
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(file)
    except (ValueError, KeyError, TypeError, SyntaxError, EOFError) as error:
        return f"{name} is not a readable array: {error}."
    return TensorEntry(name, "O" if dtype.hasobject else str(dtype), tuple(map(int, shape)))
