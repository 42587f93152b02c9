"""Look into one file or folder."""

from collections.abc import Callable
from pathlib import Path

from tersor.cli.inspection.findings import Content, Inspection, Safety
from tersor.cli.inspection.folders import executorch_file, folder, openvino_file
from tersor.cli.inspection.keras_file import hdf5_file, keras_file
from tersor.cli.inspection.pickles import pickle_file, program_file, torch_file
from tersor.cli.inspection.tensor_files import npy_file, npz_file, safetensors_file
from tersor.errors import ModelError
from tersor.exporting.files import sha256_of
from tersor.loading.references import first_line


def _onnx(path: Path) -> Content:
    from tersor.cli.inspection.onnx_graph import onnx_file  # onnx takes a third of a second to import

    return onnx_file(path)


#: Suffix -> how such a file is read.
FORMATS: dict[str, Callable[[Path], Content]] = {
    ".onnx": _onnx,
    ".safetensors": safetensors_file,
    ".npz": npz_file,
    ".npy": npy_file,
    ".keras": keras_file,
    ".pt2": program_file,
    ".xml": openvino_file,
    ".pte": executorch_file,
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), torch_file),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), pickle_file),
    **dict.fromkeys((".h5", ".hdf5"), hdf5_file),
}


def inspect(path: str | Path) -> Inspection:
    """Say what a model or data file holds and whether opening it could run code; nothing in it is executed.

    Args:
        path: a file with one of the suffixes in `FORMATS`, or a folder.

    Raises:
        ModelError: if there is no such file, or its suffix is unknown.

    Example:
        >>> import tempfile, numpy as np
        >>> folder = tempfile.TemporaryDirectory()
        >>> np.savez(f"{folder.name}/d.npz", x=np.zeros((2, 3)))
        >>> found = inspect(f"{folder.name}/d.npz")
        >>> found.safe, found.content.tensors[0].shape
        (True, (2, 3))
    """
    path = Path(path)
    if path.is_dir():
        size = sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
        return Inspection(str(path), size, "", folder(path))
    if not path.is_file():
        raise ModelError(f"There is no file {str(path)!r} (looked from {str(Path.cwd())!r}).")
    read = FORMATS.get(path.suffix.lower())
    if read is None:
        raise ModelError(f"{path.name!r} has no known suffix. `tersor inspect` reads {', '.join(FORMATS)}.")
    if not path.stat().st_size:
        return Inspection(
            str(path), 0, "", Content(kind="file", safety=Safety.BROKEN, reasons=("It is empty.",))
        )
    return Inspection(str(path), path.stat().st_size, sha256_of(path), _read(read, path))


def _read(read: Callable[[Path], Content], path: Path) -> Content:
    try:
        return read(path)
    except Exception as error:  # on damaged bytes every parser raises classes of its own
        reason = f"It cannot be read: {first_line(error)}."
        return Content(kind=f"{path.suffix} file", safety=Safety.BROKEN, reasons=(reason,))
