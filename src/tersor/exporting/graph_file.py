"""Write an ONNX graph as the file that it is."""

from collections.abc import Callable
from pathlib import Path

import torch

from tersor._check import one_of
from tersor.errors import ExportError
from tersor.exporting.agreement import QUANTIZED_TOLERANCE, TOLERANCE, relative_error
from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.files import sha256_of, shipped_bytes
from tersor.exporting.program import named_outputs, resize
from tersor.loading.inputs import Inputs, batch_size, flatten
from tersor.loading.onnx.graph_model import GraphModel

#: Runtime -> the options that it opens a graph with.
_OPTIONS: dict[str, dict[str, object]] = {
    "onnxruntime": {"graph_optimization": "all", "memory_arena": True},
    "openvino": {"precision": "f32", "input_block": 0},
}


#: ONNX's number of the type.
_FLOAT16 = 10


def write_graph(
    model: GraphModel, inputs: Inputs, path: Path, runtime: str, opened: Callable[[Artefact], Session] | None
) -> Artefact:
    """Write `model` for `runtime`, and compare what that gives with ONNX Runtime's answers on two batch sizes.

    Args:
        model: a graph.
        inputs: a real batch.
        path: file to write.
        runtime: one that opens ONNX files.
        opened: opens the file for the comparison; None leaves it out.

    Raises:
        ExportError: if the runtime takes no ONNX graph, or answers differently.
    """
    if runtime not in _OPTIONS:
        raise ExportError(
            f"An ONNX graph that does not convert to torch cannot be written for {runtime!r}, only for "
            f"{' and '.join(_OPTIONS)}."
        )
    path.write_bytes(model.content.numpy().tobytes())
    names = tuple(port.name for port in model.ports)
    ordered = tuple(inputs[name] for name in names) if isinstance(inputs, dict) else tuple(flatten(inputs))
    outputs = tuple(name for name, _ in named_outputs(model(*ordered)))
    options = _OPTIONS[one_of("runtime", runtime, _OPTIONS)]
    artefact = Artefact(runtime, path, shipped_bytes(path), sha256_of(path), options, names, outputs)
    if opened is not None:
        for size in (batch_size(ordered), 1):
            _check(model, resize(ordered, size), artefact, opened(artefact))
    return artefact


def _coarsest(model: GraphModel) -> torch.dtype:
    halves = any(tensor.data_type == _FLOAT16 for tensor in model.proto().graph.initializer)
    return torch.float16 if halves else torch.float32


def _check(model: GraphModel, inputs: tuple[torch.Tensor, ...], artefact: Artefact, session: Session) -> None:
    """Compare the main output. Runtimes fuse rounding differently, which moves values over a step of their grid."""
    allowed = QUANTIZED_TOLERANCE if model.quantized else TOLERANCE[_coarsest(model)]
    expected = named_outputs(model(*inputs))[0][1]
    try:
        actual = session([port.array(t) for port, t in zip(model.ports, inputs, strict=True)])[0]
    except Exception as error:  # each runtime has its own
        raise ExportError(f"{artefact.runtime} cannot run the graph: {str(error).splitlines()[0]}") from error
    error = relative_error(expected, actual)
    if not error <= allowed:
        raise ExportError(
            f"{artefact.runtime} answers differently from ONNX Runtime on a batch of {len(expected)}: relative error "
            f"{error:.2g}, allowed {allowed:.2g}."
        )
