"""The artefact folder: written beside its destination, then renamed, so that it is there as a whole or not at all."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tersor.errors import ArgumentError, FolderError
from tersor.reporting.card import render_card
from tersor.reporting.clean import clean, clean_json
from tersor.reporting.record import SCHEMA, Record
from tersor.reporting.remains import aside, beside, clear_remains
from tersor.reporting.report import render_html, render_json
from tersor.reporting.runner import MODELS, run_script

#: Written last; a folder without it, or whose files do not match it, is not complete.
MARKER = "DONE.json"
_SUMS = "SHA256SUMS"
_OURS = frozenset(
    {
        MARKER,
        _SUMS,
        "report.html",
        "report.json",
        "tersor.json",
        "certificate.json",
        "config.toml",
        "README.md",
        "run.py",
    }
)


def write_folder(
    destination: str | Path,
    record: Record,
    *,
    files: Mapping[str, Path],
    certificate: str | None = None,
    config: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
    kept: Sequence[str] = (),
) -> Path:
    """Write `destination` in one step: the files, the certificate, the reports, a model card and `run.py`.

    An existing folder is replaced only if tersor wrote it and nothing in it has been added or changed since. A process
    that is killed leaves at most hidden siblings of `destination`, which the next one removes; one killed between the
    two last renames leaves the earlier folder there, whole, with the ending `.old`, and the next one puts it back.

    Args:
        destination: the folder; its parent must exist.
        record: what the documents say.
        files: name in the folder to the file to copy, for example `{"model.onnx": path}`.
        certificate: JSON text, written as it is, because it may be hashed or signed.
        config: resolved configuration, for `tersor.json`.
        options: how the runtime opens the model, as in `Artefact.options`; `run.py` then does the same.
        kept: folders in it whose content changes without notice, and stays; see `place_folder`.

    Returns:
        The folder, as an absolute path.

    Raises:
        FolderError: if the destination holds something that tersor did not write, or cannot be written.
        ArgumentError: if a name in `files` would leave the folder or is one that is written here, or the
            certificate is not JSON.
    """
    destination = Path(destination).expanduser().absolute()
    _check_names(files)
    texts = _texts(clean(record), certificate, config or {}, options or {})
    if model := next((name for name in MODELS if name in files), ""):
        texts["run.py"] = run_script(model, options)
    return place_folder(destination, texts, files, kept)


def _texts(
    record: Record, certificate: str | None, config: Mapping[str, object], options: Mapping[str, object]
) -> dict[str, str]:
    texts = _documents(record) | {"tersor.json": _summary(record, config, options)}
    if record.config:
        texts["config.toml"] = record.config
    if certificate is not None:
        try:
            json.loads(certificate)
        except json.JSONDecodeError as error:
            raise ArgumentError(f"`certificate` must be JSON text: {error}.") from error
        texts["certificate.json"] = certificate
    return texts


def _documents(record: Record) -> dict[str, str]:
    return {
        "report.html": render_html(record),
        "report.json": render_json(record),
        "README.md": render_card(record),
    }


def rewrite(folder: str | Path) -> Path:
    """Write report and model card of a folder again, from its `report.json`; all other files stay as they are.

    Returns:
        The folder, as an absolute path.

    Raises:
        FolderError: if the folder is not as tersor left it, or cannot be written.
    """
    destination = Path(folder).expanduser().absolute()
    faults = find_faults(destination)
    if faults:
        raise FolderError(
            f"{destination} is not as tersor left it: {faults[0]}. Give a folder that tersor wrote."
        )
    texts, kept = _documents(clean(read_record(destination))), _kept(destination)
    held = {
        path.relative_to(destination).as_posix(): path
        for path in destination.rglob("*")
        if path.is_file()
        and path.name not in (MARKER, _SUMS)
        and path.relative_to(destination).parts[0] not in kept
    }
    files = {name: path for name, path in held.items() if name not in texts}
    return place_folder(destination, texts, files, kept)


def place_folder(
    destination: Path, texts: Mapping[str, str], files: Mapping[str, Path], kept: Sequence[str] = ()
) -> Path:
    """Write `destination` beside its place, then rename it; return it.

    Args:
        destination: the folder, absolute; replaced only if tersor wrote it.
        texts: name to content.
        files: name in the folder to the file to copy.
        kept: names of folders in it that its marker does not describe. What an earlier `destination` holds in them
            goes over to the new one, as links to the same files.

    Raises:
        FolderError: if the destination holds something that tersor did not write, or cannot be written.
    """
    refuse_foreign(destination)
    fresh = beside(destination)
    try:
        clear_remains(destination)
        fresh.mkdir()
        for name in kept:
            _link(destination / name, fresh / name)
        _fill(fresh, texts, files, kept)
        _swap(fresh, destination)
    except OSError as error:
        raise FolderError(f"Cannot write {destination}: {error}. Nothing was changed there.") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return destination


def _link(source: Path, target: Path) -> None:
    """Make `target` a folder with the same files as `source`, by links where the file system has them."""
    target.mkdir()
    if source.is_dir():
        copy = os.link if os.name == "posix" else shutil.copy2
        shutil.copytree(source, target, copy_function=copy, dirs_exist_ok=True)


def _kept(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders that the marker does not describe."""
    return tuple(map(str, json.loads((folder / MARKER).read_bytes()).get("kept", ())))


def _summary(record: Record, config: Mapping[str, object], options: Mapping[str, object]) -> str:
    values = {
        "schema": SCHEMA,
        "tersor": record.tersor_version,
        "created": record.created,
        "outcome": record.verdict.outcome,
        "limit": record.aim.limit,
        "command": record.command,
        "config": clean_json(config),
        "options": clean_json(options),
        "machine": dict(record.machine),
        "versions": dict(record.versions),
        "seeds": dict(record.seeds),
    }
    return json.dumps(values, indent=1, default=str) + "\n"


def _check_names(files: Mapping[str, Path]) -> None:
    for name in files:
        parts = PurePosixPath(name).parts
        plain = bool(parts) and all(
            re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", part) for part in parts
        )
        if not plain or "/".join(parts) != name:
            raise ArgumentError(
                f"A file name in the folder is letters, digits, `.`, `_`, `-` with `/` between folders, got {name!r}."
            )
        if name in _OURS:
            raise ArgumentError(f"{name!r} is written by tersor itself; give the file another name.")


def _fill(folder: Path, texts: Mapping[str, str], files: Mapping[str, Path], kept: Sequence[str]) -> None:
    for name, text in texts.items():
        _write(folder / name, text.encode())
    for name, source in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with Path(source).open("rb") as given, (folder / name).open("xb") as copy:
            shutil.copyfileobj(given, copy, 1 << 20)
            _flush(copy)
    names = sorted([*texts, *files])
    sums = {name: _sha256(folder / name) for name in names}
    _write(folder / _SUMS, "".join(f"{sums[name]}  {name}\n" for name in names).encode())
    sums[_SUMS] = _sha256(folder / _SUMS)
    marker = {"tool": "tersor", "schema": SCHEMA, "files": sums, "kept": list(kept)}
    _write(folder / MARKER, (json.dumps(marker, indent=1) + "\n").encode())
    _sync(folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        _flush(file)


def _flush(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and renames are durable by themselves
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _swap(fresh: Path, destination: Path) -> None:
    """Rename `fresh` to `destination`; what was there moves aside first and comes back if the rename fails."""
    earlier = aside(fresh)
    replaced = destination.exists()
    if replaced:
        destination.rename(earlier)
    try:
        fresh.rename(destination)
    except OSError:
        if replaced:
            earlier.rename(destination)
        raise
    _sync(destination.parent)
    shutil.rmtree(earlier, ignore_errors=True)


def refuse_foreign(destination: Path) -> None:
    """Raise unless `destination` is free, empty, or a folder that tersor wrote and nobody touched.

    Call it before a long run, so that the run does not end in a refusal.

    Raises:
        FolderError: naming what stands in the way.
    """
    advice = "Choose another folder, or move this one away."
    if not destination.parent.is_dir():
        raise FolderError(
            f"The folder {destination.parent} does not exist. Make it first, or choose another place."
        )
    if destination.is_symlink():
        raise FolderError(f"{destination} is a link. {advice}")
    if not destination.exists():
        return
    if not destination.is_dir():
        raise FolderError(f"{destination} is a file. {advice}")
    if any(destination.iterdir()):
        faults = find_faults(destination)
        if faults:
            raise FolderError(f"{destination} is not as tersor left it: {faults[0]}. {advice}")


def find_faults(folder: Path) -> tuple[str, ...]:
    """Return what differs between `folder` and its marker, in words; empty for a complete, untouched folder."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        sums = {str(name): str(value) for name, value in marker["files"].items()}
        known, kept = marker["tool"] == "tersor", _kept(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return (f"it has no readable {MARKER}",)
    if not known:
        return (f"its {MARKER} is not tersor's",)
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if (not path.is_dir() or path.is_symlink()) and path.relative_to(folder).parts[0] not in kept
    }
    faults = [f"{name} is not tersor's" for name in sorted(found - set(sums) - {MARKER})]
    faults += [f"{name} is missing" for name in sorted(set(sums) - found)]
    faults += [
        f"{name} was changed"
        for name in sorted(found & set(sums))
        if (folder / name).is_symlink() or _sha256(folder / name) != sums[name]
    ]
    return tuple(faults)


def read_record(folder: str | Path) -> Record:
    """Read the record of a folder that `write_folder` wrote.

    Raises:
        FolderError: if the folder has no `report.json`.
        ArgumentError: if that file is not a record.
    """
    path = Path(folder) / "report.json"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise FolderError(f"Cannot read {path}: {error}. Give a folder that tersor wrote.") from error
    return Record.from_json(text)
