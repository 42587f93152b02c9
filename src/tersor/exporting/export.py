"""Write a model for a runtime, and open what was written."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import nn

from tersor._check import one_of
from tersor.errors import ExportError
from tersor.exporting.agreement import check_agreement
from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.files import sha256_of, shipped_bytes
from tersor.exporting.graph_file import write_graph
from tersor.exporting.opening import open_artefact
from tersor.exporting.program import capture
from tersor.exporting.runtimes import RUNTIMES
from tersor.loading.inputs import Inputs
from tersor.loading.onnx.graph_model import GraphModel

__all__ = ["RUNTIMES", "export", "open_artefact", "with_options"]


def export(
    model: "nn.Module",
    inputs: "Inputs",
    path: Path | str,
    runtime: str = "onnxruntime",
    *,
    check: bool = True,
    opened: Callable[[Artefact], Session] = open_artefact,
) -> Artefact:
    """Write `model` as a file for `runtime`, and compare the file with the model.

    The batch axis becomes dynamic, and so does the second axis of integer inputs (the length of a sequence) where the
    model allows it. Arguments that are not tensors (None, booleans,
    numbers) keep the value they have in `inputs`. Outputs may be tensors, tuples, mappings or dataclasses; the
    file gives their tensors, the main one first. The model is not changed.

    The file is compared on `inputs` and on a second batch size: for each output,
    error = max over samples i of ||file_i - model_i|| / rms over samples of ||model_i||.

    Args:
        model: any module; an ONNX graph that stayed one is written as it is.
        inputs: a real batch.
        path: file to write; its folder must exist.
        runtime: a key of `RUNTIMES`.
        check: False leaves the comparison out.
        opened: opens the file for the comparison; by default in this process.

    Returns:
        The file with its size in bytes, hash, options and names of inputs and outputs.

    Raises:
        ExportError: if the model cannot be captured or written, or the file disagrees with it.
        ArgumentError: if the runtime is unknown.

    Example:
        >>> import tempfile, torch
        >>> folder = tempfile.TemporaryDirectory()
        >>> artefact = export(torch.nn.Linear(3, 2), (torch.randn(4, 3),), Path(folder.name) / "model.onnx")
        >>> artefact.runtime, artefact.inputs, artefact.outputs
        ('onnxruntime', ('input',), ('output',))
        >>> open_artefact(artefact)([torch.zeros(7, 3).numpy()])[0].shape
        (7, 2)
    """
    kind = RUNTIMES[one_of("runtime", runtime, RUNTIMES)]
    if kind.missing():
        raise ExportError(
            f"The runtime {runtime!r} needs {kind.missing()}. Install it, or choose another runtime."
        )
    path = Path(path)
    if isinstance(model, GraphModel):
        return write_graph(model, inputs, path, runtime, opened if check else None)
    program = capture(model, inputs)
    options = dict(kind.write(program, path))
    artefact = Artefact(
        runtime, path, shipped_bytes(path), sha256_of(path), options, program.inputs, program.outputs
    )
    if check:
        check_agreement(artefact, program, opened(artefact))
    return artefact


def with_options(artefact: Artefact, **options: object) -> Artefact:
    """Return `artefact` with some of its options replaced; the file stays the same.

    Example:
        >>> artefact = Artefact("onnxruntime", Path("m.onnx"), 1, "", {"memory_arena": True})
        >>> with_options(artefact, graph_optimization="basic").options
        {'memory_arena': True, 'graph_optimization': 'basic'}
    """
    return dataclasses.replace(artefact, options={**artefact.options, **options})
