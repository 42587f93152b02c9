"""Hash and size of written files."""

import hashlib
from pathlib import Path

from tersor.errors import ExportError
from tersor.exporting.artefact import Artefact


def ending_of(runtime: str) -> str:
    """Return how the name of a file for `runtime` ends.

    Example:
        >>> ending_of("openvino"), ending_of("executorch")
        ('.onnx', '.pte')
    """
    return ".pte" if runtime == "executorch" else ".onnx"


def main_file(runtime: str) -> str:
    """Return how the file of a folder for `runtime` is called.

    Example:
        >>> main_file("onnxruntime"), main_file("executorch")
        ('model.onnx', 'model.pte')
    """
    return f"model{ending_of(runtime)}"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_hash(artefact: Artefact) -> None:
    """Refuse a file whose hash is not the one that its writer recorded; for files that run code when opened.

    Raises:
        ExportError: if the hash differs.
    """
    if sha256_of(artefact.path) != artefact.sha256:
        raise ExportError(
            f"{artefact.path.name} is not the file that was written: its hash changed. "
            "A torch file can run any code when opened; export the model again."
        )


def shipped_bytes(path: Path) -> int:
    """Return the size of a file and of what lies beside it under the same name, as ONNX weights do."""
    beside = path.with_name(path.name + ".data")
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)
