"""Tables in text files and parquet files: a target column, and numbers or a text to be tokenized."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tersor._extras import require
from tersor.errors import DataError
from tersor.loading.options import existing, is_on, numbers, take_options
from tersor.loading.references import first_line

#: What to take from a table of any format.
TABLE_OPTIONS = ("target", "drop", "text", "tokenizer", "length")
#: Tokens that a text is cut to, unless `length` says otherwise.
_LENGTH = 128


def read_csv(path: str, options: Mapping[str, str]) -> object:
    """Return a table as (x, y); options `target=`, `drop=a,b`, `sep=`, `header=no`, `text=` with `tokenizer=`."""
    return _read(
        path, take_options("csv", options, (*TABLE_OPTIONS, "sep", "header")), options.get("sep", ",")
    )


def read_tsv(path: str, options: Mapping[str, str]) -> object:
    """Return a tab-separated table as (x, y); options as in `read_csv`. Without a header columns are 0, 1, ..."""
    return _read(path, take_options("tsv", options, (*TABLE_OPTIONS, "header")), "\t")


def _read(path: str, options: Mapping[str, str], separator: str) -> object:
    file = existing(path)
    if len(separator) != 1:
        raise DataError(f"The option 'sep' takes one character, got {separator!r}.")
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = [row for row in csv.reader(lines, delimiter=separator, quoting=quoting) if row]
    except (ValueError, OSError, csv.Error) as cause:
        raise DataError(f"{file.name!r} is not a readable table: {first_line(cause)}") from cause
    header = [str(i) for i in range(len(rows[0]) if rows else 0)]
    if is_on(options, "header", default=True) and rows:
        header = rows.pop(0)
    uneven = next((row for row in rows if len(row) != len(header)), None)
    if not rows or uneven is not None:
        where = "no rows" if uneven is None else f"a row of {len(uneven)} cells: {', '.join(uneven)[:60]!r}"
        raise DataError(f"{file.name!r} has {len(header)} columns and {where}.")
    return table({name: [row[i] for row in rows] for i, name in enumerate(header)}, file.name, options)


def read_parquet_table(files: Sequence[Path], options: Mapping[str, str]) -> object:
    """Return a parquet table as (x, y), options as in `read_csv`.

    Raises:
        DataError: if a file is damaged or a column does not fit.
    """
    return table(parquet_columns(files, None), files[0].name, options)


def parquet_files(path: str) -> list[Path]:
    """Return the file at `path`, or all parquet files of the folder, by name.

    Raises:
        DataError: if there is none.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return [existing(path)]
    found = sorted(file for file in folder.iterdir() if file.suffix == ".parquet" and file.is_file())
    if not found:
        raise DataError(f"The folder {path!r} holds no .parquet files.")
    return found


def parquet_columns(files: Sequence[Path], names: list[str] | None) -> dict[str, list[Any]]:
    """Return the named columns (None for all) of parquet files, one after the other, as lists.

    Raises:
        DataError: if a file is damaged, a column is missing, or files differ in their columns.
    """
    joined: dict[str, list[Any]] = {}
    for file in files:
        columns = _parquet(file, names)
        if joined and joined.keys() != columns.keys():
            raise DataError(f"{file.name!r} has other columns than {files[0].name!r}: {', '.join(columns)}.")
        for name, values in columns.items():
            joined.setdefault(name, []).extend(values)
    return joined


def _parquet(file: Path, names: list[str] | None) -> dict[str, list[Any]]:
    parquet = require("pyarrow.parquet", extra="parquet", purpose=f"Reading {file.name!r}")
    arrow = require("pyarrow", extra="parquet", purpose=f"Reading {file.name!r}")
    try:
        known = parquet.read_schema(file).names
        for name in names or ():
            _known(name, known, file.name)
        return parquet.read_table(file, columns=names).to_pydict()
    except (arrow.ArrowException, OSError, ValueError) as cause:
        if isinstance(cause, DataError):
            raise
        raise DataError(f"{file.name!r} is not a readable parquet file: {first_line(cause)}") from cause


def _known(name: str, columns: Any, file: str) -> None:
    if name not in columns:
        raise DataError(f"{file!r} has no column {name!r}; its columns are {', '.join(columns)}.")


def table(columns: Mapping[str, list[Any]], file: str, options: Mapping[str, str]) -> object:
    """Return (x, y) of named columns.

    Args:
        columns: lists of equal length.
        file: name to show in messages.
        options: `target`, `drop`, and `text` with `tokenizer` and `length`.

    Returns:
        x float32 (rows, features), or the tokens of the text by name; with y, numbers, or for text the place of the
        class among the sorted classes. x alone without a target.

    Raises:
        DataError: if a named column is missing, or a feature is text.
    """
    targets, dropped = _list(options.get("target")), _list(options.get("drop"))
    for name in (*targets, *dropped, *_list(options.get("text"))):
        _known(name, columns, file)
    if "text" in options:
        x: object = _tokens([str(v) for v in columns[options["text"]]], options)
    else:
        features = [name for name in columns if name not in targets and name not in dropped]
        if not features:
            raise DataError(f"{file!r} has no column left besides the target and the dropped ones.")
        x = np.stack([_numbers(columns[name], name, file) for name in features], axis=1)
    if not targets:
        return x
    y = [answers_of(columns[name]) for name in targets]
    return x, (y[0] if len(y) == 1 else np.stack(y, axis=1))


def _tokens(texts: list[str], options: Mapping[str, str]) -> dict[str, np.ndarray]:
    where = options.get("tokenizer", "")
    if not where:
        raise DataError(
            "The option 'text' needs 'tokenizer=FOLDER' (or 'tokenizer=hf:NAME'), which turns text into numbers."
        )
    (length,) = numbers(options, "length", (_LENGTH,))
    transformers = require("transformers", extra="hf", purpose="Tokenizing a text column")
    name = where.removeprefix("hf:")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            name, local_files_only=name == where, trust_remote_code=False
        )
        found = tokenizer(texts, truncation=True, max_length=int(length), padding=True, return_tensors="np")
    except (OSError, ValueError, KeyError) as cause:
        raise DataError(f"The tokenizer {where!r} cannot be used: {first_line(cause)}") from cause
    return dict(found)


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _numbers(column: list[Any], name: str, file: str) -> np.ndarray:
    try:
        return np.asarray([np.nan if v in ("", None) else v for v in column], dtype=np.float64).astype(
            np.float32
        )
    except (ValueError, TypeError) as cause:
        raise DataError(
            f"The column {name!r} of {file!r} holds text. Encode it as numbers, or leave it out with drop={name}."
        ) from cause


def answers_of(column: list[Any]) -> np.ndarray:
    """Return a target column: integers, else real numbers, else the place of each text among the sorted texts.

    Example:
        >>> answers_of(["cat", "ant", "cat"]).tolist()
        [1, 0, 1]
    """
    for kind in (np.int64, np.float64):
        try:
            return np.asarray(column, dtype=kind) if kind is np.float64 else _integers(column)
        except (ValueError, TypeError):
            continue
    return np.unique(np.asarray(column, dtype=str), return_inverse=True)[1]


def _integers(column: list[Any]) -> np.ndarray:
    if any(isinstance(v, float) for v in column):
        raise ValueError
    return np.asarray([int(v) for v in column], dtype=np.int64)
