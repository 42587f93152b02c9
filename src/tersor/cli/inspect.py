"""`tersor inspect`: what a file holds, and whether opening it could run code."""

import sys
from pathlib import Path

from tersor.cli.answer import Json, columns

#: Tensors listed for people; `--json` lists all.
_SHOWN = 40


def inspect(file: Path, *, json: Json = False) -> int:
    """Say what FILE holds and whether opening it could run code. Nothing in it is executed.

    Reads `.onnx`, `.safetensors`, `.pt`, `.pth`, `.ckpt`, `.bin`, `.pt2`, `.keras`, `.h5`, `.npz`, `.npy`, `.pkl`,
    OpenVINO `.xml`, and folders. Exit status: 0 data only, 1 code, damaged or dishonest.

    For example, `tersor inspect downloaded.pt`

    Args:
        file: a file or folder.
        json: print JSON, with every tensor.
    """
    from tersor.cli.inspection.inspect import inspect as look
    from tersor.reporting.clean import clean_text

    found = look(file)
    if json:
        sys.stdout.write(found.to_json() + "\n")
        return 0 if found.safe else 1
    content = found.content
    lines = [f"{found.path}: {content.kind}, {found.size_bytes:,} bytes", content.safety.value]
    lines += [f"  {reason}" for reason in content.reasons]
    lines += columns([(f"  {name}", value) for name, value in content.facts.items()]) if content.facts else []
    tensors = [(f"  {t.name}", t.dtype, "x".join(map(str, t.shape)) or "scalar") for t in content.tensors]
    if tensors:
        lines += [f"{len(tensors)} tensors", *columns(tensors[:_SHOWN])]
    if len(tensors) > _SHOWN:
        lines.append(f"  and {len(tensors) - _SHOWN} more; `--json` lists all")
    if content.advice and found.safe:
        lines.append(f"use it with: {content.advice}")
    elif content.advice:
        lines.append(f"instead: {content.advice}")
    # Names come from the file: what could move the cursor or recolour the terminal is taken out.
    sys.stdout.write("".join(f"{clean_text(line)}\n" for line in lines))
    return 0 if found.safe else 1
