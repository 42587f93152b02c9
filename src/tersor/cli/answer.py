"""What a command says: lines for people, or one JSON document for programs."""

import json as _json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from tersor.errors import FolderError

#: The flag that every command has.
Json: TypeAlias = Annotated[bool, Parameter(negative=())]


def show(values: Mapping[str, object], lines: Iterable[str], *, json: bool) -> None:
    """Write `values` as JSON, or `lines`, to standard output."""
    if json:
        sys.stdout.write(_json.dumps(values, indent=1, default=str) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows of words as aligned lines.

    Example:
        >>> columns([("a", "1"), ("long", "22")])
        ['a     1', 'long  22']
    """
    table = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]


def refuse_taken(path: Path) -> None:
    """Raise unless a new file or folder can be made at `path`; call it before anything slow.

    Raises:
        FolderError: if something is there, or the folder around it is missing.
    """
    if not path.absolute().parent.is_dir():
        raise FolderError(f"The folder {path.absolute().parent} does not exist. Make it first.")
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise FolderError(f"{path} exists already. Choose another name with -o, or move it away.")
