"""Hugging Face `datasets`: folders that `save_to_disk` wrote, and sets of the hub when one is named."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tersor._extras import require
from tersor.errors import DataError
from tersor.loading.images import IMAGE_OPTIONS, image_bytes, make_images
from tersor.loading.options import take_options
from tersor.loading.references import first_line
from tersor.loading.tables import TABLE_OPTIONS, answers_of, table

_OPTIONS = ("name", "split", "revision")


def read_hub(path: str, options: Mapping[str, str]) -> object:
    """Return a data set of Hugging Face `datasets`; its splits where it has several.

    Args:
        path: the folder of a saved set, else the name of one on the hub (the only case that uses the network).
        options: `split=`; on the hub also `name=` (of the configuration) and `revision=`; and for the columns those of
            `parquet:`: `target=`, `text=` with `tokenizer=`, or `image=` with `label=`.

    Raises:
        DataError: if it cannot be read, or a column does not fit.
        MissingExtraError: if `datasets` is not installed.
    """
    images = "image" in options
    columns = ("image", "label", *IMAGE_OPTIONS) if images else TABLE_OPTIONS
    take_options("hf", options, (*_OPTIONS, *columns))
    library = require("datasets", extra="datasets", purpose=f"The data set {path!r}")
    found = _found(library, path, options)
    splits = found if isinstance(found, library.DatasetDict) else {"": found}
    if "split" in options and "" not in splits:
        if options["split"] not in splits:
            raise DataError(f"{path!r} has no split {options['split']!r}; it has {', '.join(splits)}.")
        splits = {"": splits[options["split"]]}
    read = _images if images else _table
    made = {name: read(library, part, path, options) for name, part in splits.items()}
    return made.get("", made)


def _found(library: Any, path: str, options: Mapping[str, str]) -> Any:
    folder = Path(path).expanduser()
    try:
        if folder.is_dir():
            return library.load_from_disk(str(folder))
        return library.load_dataset(path, options.get("name"), revision=options.get("revision"))
    except Exception as cause:  # the library, the network and the file system each raise their own
        what = (
            "is no folder that save_to_disk wrote"
            if folder.is_dir()
            else "is neither a folder nor on the hub"
        )
        raise DataError(f"{path!r} {what}: {first_line(cause)}") from cause


def _table(_library: Any, part: Any, path: str, options: Mapping[str, str]) -> object:
    given = {key: value for key, value in options.items() if key not in _OPTIONS}
    try:
        columns = part.with_format(None).to_dict()
    except Exception as cause:  # damaged Arrow files raise errors of many kinds
        raise DataError(f"{path!r} cannot be read: {first_line(cause)}") from cause
    return table(columns, path, given)


def _images(library: Any, part: Any, path: str, options: Mapping[str, str]) -> object:
    for name in filter(None, (options["image"], options.get("label"))):
        if name not in part.column_names:
            raise DataError(
                f"{path!r} has no column {name!r}; its columns are {', '.join(part.column_names)}."
            )
    # Undecoded, so that one reader of images looks at all of them.
    raw = part.cast_column(options["image"], library.Image(decode=False))
    labels = answers_of(list(raw[options["label"]])) if "label" in options else None
    cells = [image_bytes(cell, path) for cell in raw[options["image"]]]
    given = {key: value for key, value in options.items() if key in IMAGE_OPTIONS}
    return make_images(cells, None if labels is None else np.asarray(labels), given)
