"""Open a file that `export` wrote. Nothing here imports torch before a torch file is opened."""

from tersor._check import one_of, positive
from tersor.errors import ExportError
from tersor.exporting import aot_runtime as _aot_runtime
from tersor.exporting import executorch_runtime as _executorch_runtime
from tersor.exporting import onnx_runtime as _onnx_runtime
from tersor.exporting import openvino_runtime as _openvino_runtime
from tersor.exporting import torch_runtime as _torch_runtime
from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.runtimes import RUNTIMES

#: Importing a runtime's module registers it.
_REGISTERED = (_onnx_runtime, _torch_runtime, _aot_runtime, _openvino_runtime, _executorch_runtime)


def open_artefact(artefact: Artefact, *, threads: int = 1) -> Session:
    """Open a file that `export` wrote, in this process.

    Args:
        artefact: the file.
        threads: threads the runtime may use.

    Returns:
        A callable: arrays in the order of `artefact.inputs` to arrays in the order of `artefact.outputs`.

    Raises:
        ExportError: if the file cannot be opened.
    """
    positive("threads", threads)
    kind = RUNTIMES[one_of("runtime", artefact.runtime, RUNTIMES)]
    try:
        return kind.open(artefact, threads=threads)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"{artefact.runtime} cannot open {artefact.path.name}: {error}. Export the model again."
        ) from error
