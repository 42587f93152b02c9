"""Pickles, read as a list of opcodes: which names they would import. Nothing is ever unpickled here."""

import pickletools
import zipfile
from pathlib import Path
from typing import IO

from tersor.cli.inspection.findings import Content, Safety, TensorEntry
from tersor.errors import ModelError
from tersor.loading.archive import check_archive

#: What a file of tensors needs; PyTorch's restricted reader builds these itself.
_TENSOR_NAMES = frozenset(
    {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_qtensor",
        "torch._utils._rebuild_sparse_tensor",
        "torch.Size",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
    }
)
_STRINGS = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"})
_STORES = frozenset({"MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"})
#: Opcodes whose target cannot be read off the file.
_HIDDEN = frozenset({"EXT1", "EXT2", "EXT4"})
_PICKLE_BYTES = 256 * 2**20
#: Above this many bytes tensors are not listed: that takes reading them.
_LISTED_BYTES = 2**30
#: First bytes of a torch file before 1.6: a pickle of its magic number, as protocol 2.
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PICKLES = 5
_CODE_ENTRIES = (".so", ".cpp", ".py", ".dll", ".dylib")


def imported_names(data: bytes | IO[bytes]) -> frozenset[str]:
    r"""Return the names that a pickle would import; `?` stands for one that cannot be read off the opcodes.

    Example:
        >>> sorted(imported_names(b"cos\nsystem\n(S'ls'\ntR."))
        ['os.system']
    """
    names: set[str] = set()
    before: list[str | None] = [None, None]
    for operation, argument, _ in pickletools.genops(data):
        match operation.name:
            case "GLOBAL" | "INST":
                names.add(str(argument).replace(" ", ".", 1))
            case "STACK_GLOBAL":
                # Only two strings pushed right before are sure to be the name; all else could be sleight of hand.
                sure = all(isinstance(part, str) for part in before)
                names.add(".".join(map(str, before)) if sure else "?")
            case name if name in _HIDDEN:
                names.add("?")
            case _:
                pass
        if operation.name not in _STORES:
            before = [before[1], str(argument) if operation.name in _STRINGS else None]
    return frozenset(names)


def pickle_file(path: Path) -> Content:
    """Read which names a bare pickle would import."""
    try:
        names = imported_names(path.read_bytes()[:_PICKLE_BYTES])
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        return Content(kind="pickle", safety=Safety.BROKEN, reasons=(f"It is no readable pickle: {error}.",))
    return Content(kind="pickle", safety=Safety.CODE, reasons=(_would_import(names),), advice=_REBUILD)


_REBUILD = "pass file.py:build with --weights FILE.safetensors instead"


def _would_import(names: frozenset[str]) -> str:
    return f"It would import {', '.join(sorted(names)) or 'nothing by name'}."


def torch_file(path: Path) -> Content:
    """Look into a `.pt`, `.pth`, `.ckpt` or `.bin` file."""
    if not zipfile.is_zipfile(path):
        return _legacy(path)
    try:
        entries = check_archive(path, ModelError)
    except ModelError as error:
        return Content(kind="torch archive", safety=Safety.BROKEN, reasons=(str(error),))
    if any("/code/" in f"/{name}" for name in entries):
        reason = "It holds TorchScript, a program that runs when the model is called."
        return Content(kind="TorchScript program", safety=Safety.CODE, reasons=(reason,), advice=_REBUILD)
    return _archive(path, entries, "torch file")


def program_file(path: Path) -> Content:
    """Look into a `.pt2` program; loading one unpickles parts of it, and may load a compiled library."""
    try:
        entries = check_archive(path, ModelError)
    except ModelError as error:
        return Content(kind="torch.export program", safety=Safety.BROKEN, reasons=(str(error),))
    compiled = sorted(name for name in entries if name.endswith(_CODE_ENTRIES))
    reasons = ["`torch.export.load` unpickles parts of the file without restriction."]
    if compiled:
        reasons.append(f"It holds native code: {', '.join(compiled[:4])}.")
    facts = {"entries": str(len(entries)), "unpacked": f"{sum(entries.values()):,} bytes"}
    return Content(
        kind="torch.export program",
        safety=Safety.CODE,
        reasons=tuple(reasons),
        facts=facts,
        advice="pass the PyTorch model that it was exported from",
    )


def _legacy(path: Path) -> Content:
    """Read the pickles that follow each other at the start: marks of the format, the object, names of storages."""
    names: frozenset[str] = frozenset()
    try:
        with path.open("rb") as file:
            head = file.read(len(_LEGACY_MAGIC))
            file.seek(0)
            for _ in range(_LEGACY_PICKLES if head == _LEGACY_MAGIC else 1):
                names |= imported_names(file)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        reason = f"It is neither an archive nor a readable pickle: {error}."
        return Content(kind="torch file", safety=Safety.BROKEN, reasons=(reason,))
    return _judged(path, names, "torch file in the form before 1.6", {})


def _archive(path: Path, entries: dict[str, int], kind: str) -> Content:
    names: set[str] = set()
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in entries if name.endswith(".pkl")]
        if any(entries[name] > _PICKLE_BYTES for name in pickles):
            return Content(kind=kind, safety=Safety.BROKEN, reasons=("Its pickle is beyond reason.",))
        try:
            for name in pickles:
                names |= imported_names(archive.read(name))
        except (ValueError, IndexError, UnicodeDecodeError, zipfile.BadZipFile) as error:
            return Content(kind=kind, safety=Safety.BROKEN, reasons=(f"It is damaged: {error}.",))
    return _judged(path, frozenset(names), kind, {"entries": str(len(entries))})


def _judged(path: Path, names: frozenset[str], kind: str, facts: dict[str, str]) -> Content:
    foreign = frozenset(name for name in names if not _harmless(name))
    if foreign:
        return Content(
            kind=f"{kind} with pickled objects",
            safety=Safety.CODE,
            reasons=(_would_import(foreign),),
            facts=facts,
            advice=_REBUILD,
        )
    return Content(
        kind=f"{kind} of tensors",
        safety=Safety.DATA,
        facts=facts,
        tensors=_tensors(path),
        advice=f"--weights {path.name}",
    )


def _harmless(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return name in _TENSOR_NAMES or (
        module == "torch" and (last.endswith("Storage") or last.startswith(("float", "int", "uint", "b")))
    )


def _tensors(path: Path) -> tuple[TensorEntry, ...]:
    """List the tensors through the restricted reader; empty where it does not find any."""
    if path.stat().st_size > _LISTED_BYTES:
        return ()
    from tersor.loading.weights import read_weights

    try:
        weights = read_weights(path)
    except ModelError:
        return ()
    return tuple(
        TensorEntry(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in weights.items()
    )
