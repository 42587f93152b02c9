"""Read an ONNX file without trusting it: its weights may lie in other files, and those must be the model's own."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx

from tersor.errors import ModelError
from tersor.loading.references import first_line

#: A graph without its weights is small; protobuf itself stops at 2 GiB.
_MOST_BYTES = 2 * 2**30
_CHUNK = 2**24


def read_graph(path: str | Path) -> onnx.ModelProto:
    """Return an ONNX model with all its weights in memory.

    External weights are taken only from regular files in the folder of the model that have one name (no links of
    either kind), and are read from a private copy, so that a file cannot change between the check and the reading.

    Args:
        path: an `.onnx` file.

    Raises:
        ModelError: if the file is missing or damaged, or names data that is not its own.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no ONNX file {str(path)!r} (looked from {str(Path.cwd())!r}).")
    if path.stat().st_size > _MOST_BYTES:
        raise ModelError(
            f"{path.name!r} is over 2 GiB, which no ONNX graph can be; keep its weights in a file beside it."
        )
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as cause:  # protobuf raises its own, and differently by version
        raise ModelError(f"{path.name!r} is not a readable ONNX file: {first_line(cause)}") from cause
    if not model.graph.node:
        raise ModelError(f"{path.name!r} holds no graph; is it an ONNX file?")
    external = [tensor for tensor in tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if external:
        _take_external(model, external, path)
    _check(model, path.name)
    return model


def _check(model: onnx.ModelProto, name: str) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as cause:  # likewise
        raise ModelError(f"{name!r} is no valid ONNX graph: {first_line(cause)}") from cause


def tensors(content: Any) -> Iterator[onnx.TensorProto]:
    """Yield every tensor in a model: initializers, constants, and those of inner graphs and functions."""
    for field, value in content.ListFields():
        if field.message_type is None:
            continue
        for inner in value if field.is_repeated else (value,):
            if isinstance(inner, onnx.TensorProto):
                yield inner
            else:
                yield from tensors(inner)


def _take_external(model: onnx.ModelProto, external: list[onnx.TensorProto], path: Path) -> None:
    folder = path.resolve().parent
    with tempfile.TemporaryDirectory(prefix="tersor-onnx-") as private:
        copies: dict[str, Path] = {}
        for tensor in external:
            _point(tensor, copies, folder, Path(private), path.name)
        try:
            onnx.load_external_data_for_model(model, private)
        except Exception as cause:  # the loader raises errors of many kinds
            raise ModelError(f"The weights of {path.name!r} cannot be read: {first_line(cause)}") from cause


def _point(tensor: onnx.TensorProto, copies: dict[str, Path], folder: Path, private: Path, name: str) -> None:
    """Let a tensor take its numbers from the private copy of its file, which is made if need be."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if location not in copies:
        copies[location] = _copied(folder, location, private / str(len(copies)), name)
    _inside(entries, copies[location], tensor.name, name)
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = copies[location].name


def _copied(folder: Path, location: str, target: Path, name: str) -> Path:
    """Copy the file that a graph names as its own, if it is."""
    parts = PurePosixPath(location.replace("\\", "/")).parts
    absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if not location or absolute or ".." in parts or "\0" in location:
        raise ModelError(
            f"{name!r} keeps weights at {location!r}, which points outside its folder; refused. Save the model again "
            "with its weights beside it."
        )
    source = folder.joinpath(*parts)
    if source.parent.resolve() != source.parent or folder not in source.parents:
        raise ModelError(f"{name!r} keeps weights at {location!r}, which leads through a link; refused.")
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as cause:
        raise ModelError(
            f"{name!r} keeps weights at {location!r}, which is missing or a link ({first_line(cause)})."
        ) from cause
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1:
            raise ModelError(
                f"{name!r} keeps weights at {location!r}, which is no plain file with a single name (a hard link may "
                "show another file); refused. Copy the file to its place."
            )
        with target.open("xb") as copy:
            while chunk := file.read(_CHUNK):
                copy.write(chunk)
    return target


def _inside(entries: dict[str, str], copy: Path, tensor: str, name: str) -> None:
    size = copy.stat().st_size
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        offset, length = -1, 0
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"{name!r} wants {entries.get('length', '?')!r} bytes from {entries.get('offset', '0')!r} on of a file of "
            f"{size:,} bytes for {tensor!r}; it is damaged."
        )
