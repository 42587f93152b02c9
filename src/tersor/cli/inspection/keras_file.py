"""Keras files: `.keras` archives and `.h5`, whose configuration may name code."""

import json
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tersor.cli.inspection.findings import Content, Safety, TensorEntry
from tersor.errors import ModelError
from tersor.loading.archive import check_archive

#: Layers that carry code of their own, as bytecode or as another saved program.
_PROGRAMS = frozenset({"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def keras_file(path: Path) -> Content:
    """Read the configuration of a `.keras` archive."""
    kind = "Keras 3 archive"
    try:
        entries = check_archive(path, ModelError)
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            metadata = json.loads(archive.read("metadata.json")) if "metadata.json" in entries else {}
    except (ModelError, ValueError, KeyError) as error:
        return Content(kind=kind, safety=Safety.BROKEN, reasons=(f"It is damaged: {error}.",))
    facts = {"keras": str(metadata.get("keras_version", "")), "entries": ", ".join(sorted(entries)[:8])}
    return _judged(kind, config, facts, path)


def hdf5_file(path: Path) -> Content:
    """Read the arrays and the configuration of an HDF5 file, where `h5py` is installed."""
    kind = "HDF5 file"
    with path.open("rb") as file:
        if file.read(8) != _SIGNATURE:
            return Content(kind=kind, safety=Safety.BROKEN, reasons=("It has no HDF5 signature.",))
    if not find_spec("h5py"):
        reason = "Its configuration cannot be read without `h5py` (pip install h5py), so it counts as code."
        return Content(kind=kind, safety=Safety.CODE, reasons=(reason,))
    try:
        config, tensors = _hdf5(path)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        return Content(kind=kind, safety=Safety.BROKEN, reasons=(f"It is damaged: {error}.",))
    if config is None:
        return Content(kind=f"{kind} of arrays", safety=Safety.DATA, tensors=tensors)
    return _judged("Keras model in HDF5", config, {}, path, tensors)


def _hdf5(path: Path) -> tuple[Any, tuple[TensorEntry, ...]]:
    import h5py

    found: list[TensorEntry] = []

    def note(name: str, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            found.append(TensorEntry(name, str(entry.dtype), tuple(entry.shape or ())))

    with h5py.File(path, "r") as file:
        file.visititems(note)
        config = file.attrs.get("model_config")
    return (None if config is None else json.loads(config)), tuple(found)


def _judged(
    kind: str, config: Any, facts: dict[str, str], path: Path, tensors: tuple[TensorEntry, ...] = ()
) -> Content:
    parts = list(_classes(config))
    programs = sorted({name for name, _ in parts} & _PROGRAMS)
    own = sorted({name for name, module in parts if module and not module.startswith("keras")})
    layers = [name for name, module in parts if module and ".layers" in module]
    facts = facts | {"layers": ", ".join(dict.fromkeys(layers))[:400], "own classes": ", ".join(own)}
    reasons = [f"It holds {', '.join(programs)}, which carry code."] if programs else []
    if own:
        reasons.append(f"It needs your own classes: {', '.join(own[:6])}.")
    return Content(
        kind=kind,
        safety=Safety.CODE if programs else Safety.DATA,
        reasons=tuple(reasons),
        facts={name: value for name, value in facts.items() if value},
        tensors=tensors,
        advice=f"tersor check {path.name} --data ...",
    )


def _classes(config: Any) -> Iterator[tuple[str, str]]:
    """Yield class and module of everything that a configuration names, at any depth."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config["class_name"], str(config.get("module") or "")
        for value in config.values():
            yield from _classes(value)
    elif isinstance(config, list):
        for value in config:
            yield from _classes(value)
