"""Folders: what tersor wrote, a saved Hugging Face model; and graphs of OpenVINO and ExecuTorch."""

import json
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tersor.cli.inspection.findings import Content, Safety
from tersor.reporting.folder import MARKER, find_faults


def folder(path: Path) -> Content:
    """Say what a folder is."""
    if (path / MARKER).is_file():
        return _ours(path)
    if (path / "config.json").is_file():
        return _pretrained(path)
    names = ", ".join(sorted(entry.name for entry in path.iterdir())[:12])
    return Content(
        kind="folder",
        safety=Safety.CODE,
        reasons=("It is no folder that tersor or transformers wrote; look into its files one by one.",),
        facts={"holds": names},
    )


def _ours(path: Path) -> Content:
    faults = find_faults(path)
    files = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
    return Content(
        kind="folder of tersor",
        safety=Safety.BROKEN if faults else Safety.DATA,
        reasons=tuple(fault[0].upper() + fault[1:] + "." for fault in faults[:8]),
        facts={"holds": ", ".join(files)},
        advice=f"tersor verify {path}",
    )


def _pretrained(path: Path) -> Content:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return Content(
            kind="Hugging Face folder", safety=Safety.BROKEN, reasons=(f"config.json is damaged: {error}.",)
        )
    names = sorted(entry.name for entry in path.iterdir())
    own = [key for key in ("auto_map", "trust_remote_code") if _holds(config, key)]
    pickled = [n for n in names if n.endswith((".bin", ".pt", ".pth", ".h5", ".pkl"))]
    reasons = [f"Its config.json asks to run code of its own ({', '.join(own)})."] if own else []
    if pickled and not any(n.endswith(".safetensors") for n in names):
        reasons.append(f"Its weights are pickles: {', '.join(pickled[:4])}.")
    facts = {
        "architecture": ", ".join(map(str, config.get("architectures") or [])),
        "holds": ", ".join(names[:16]),
    }
    return Content(
        kind="Hugging Face folder",
        safety=Safety.CODE if reasons else Safety.DATA,
        reasons=tuple(reasons),
        facts=facts,
        advice=f"tersor check {path} --data ...",
    )


def _holds(value: Any, key: str) -> bool:
    if isinstance(value, dict):
        return bool(value.get(key)) or any(_holds(inner, key) for inner in value.values())
    return isinstance(value, list) and any(_holds(inner, key) for inner in value)


def openvino_file(path: Path) -> Content:
    """Read the layers of an OpenVINO graph; its weights lie beside it as `.bin`."""
    kind = "OpenVINO graph"
    text = path.read_text(encoding="utf-8", errors="replace")
    if "<!ENTITY" in text or "<!DOCTYPE" in text:
        reason = "It declares XML entities, which no OpenVINO file needs."
        return Content(kind=kind, safety=Safety.BROKEN, reasons=(reason,))
    try:
        layers = ElementTree.fromstring(text).findall("layers/layer")
    except ElementTree.ParseError as error:
        return Content(kind=kind, safety=Safety.BROKEN, reasons=(f"It is no readable XML: {error}.",))
    weights = path.with_suffix(".bin")
    missing = () if weights.is_file() else (f"{weights.name} with its weights is missing.",)
    counts = Counter(layer.get("type", "?") for layer in layers)
    facts = {"layers": ", ".join(f"{name} {count}" for name, count in counts.most_common(24))}
    safety = Safety.DATA if layers and not missing else Safety.BROKEN
    return Content(kind=kind, safety=safety, reasons=missing, facts=facts)


def executorch_file(path: Path) -> Content:
    """Look at the head of an ExecuTorch program: instructions for kernels of the runtime, and weights."""
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:6] != b"ET":
        reason = "It does not begin as an ExecuTorch program does."
        return Content(kind="ExecuTorch program", safety=Safety.BROKEN, reasons=(reason,))
    return Content(
        kind="ExecuTorch program", safety=Safety.DATA, facts={"format": head[4:8].decode("ascii", "replace")}
    )
