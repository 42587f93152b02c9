"""What a command compares or evaluates: a file, a folder that tersor wrote, or a model that becomes a file."""

import inspect as signatures
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tersor.cli.flags import ModelFlags, arguments_of
from tersor.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

    from tersor.exporting.artefact import Artefact
    from tersor.loading.inputs import Inputs

#: Suffix of a finished graph -> the runtime that opens it.
_RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino", ".pte": "executorch"}


def load(model: str, loading: ModelFlags) -> "nn.Module":
    """Return the module that a command's MODEL stands for."""
    from tersor.loading.model import load_model

    return load_model(
        model,
        weights=loading.weights,
        arguments=arguments_of(loading),
        allow_code_execution=loading.allow_code_execution,
    )


def is_file(reference: str) -> bool:
    """Whether `reference` is a finished graph, or a folder of tersor that holds one."""
    path = Path(reference)
    return path.suffix in _RUNTIMES or (path.is_dir() and _main_file(path).is_file())


def _main_file(given: Path) -> Path:
    """Return the graph of a folder that tersor wrote; a file is its own."""
    if not given.is_dir():
        return given
    return next(
        (path for path in (given / f"model{suffix}" for suffix in _RUNTIMES) if path.is_file()),
        given / "model.onnx",
    )


def find_artefact(reference: str) -> "Artefact":
    """Return the artefact of a finished graph; it is looked into first, and refused if it is not sound.

    Raises:
        ModelError: if the file is missing, damaged, or needs code of its own.
    """
    from tersor.cli.inspection.inspect import inspect
    from tersor.exporting.artefact import Artefact
    from tersor.exporting.files import shipped_bytes

    given = Path(reference)
    path = _main_file(given)
    found = inspect(path)
    if not found.safe:
        raise ModelError(f"{reference!r} is {found.content.safety.value}. {' '.join(found.content.reasons)}")
    inputs, outputs = _ends(path)
    beside = path.with_suffix(".bin")
    weights = beside.stat().st_size if path.suffix == ".xml" else 0
    return Artefact(
        _RUNTIMES[path.suffix],
        path,
        shipped_bytes(path) + weights,
        found.sha256,
        _options(given),
        inputs,
        outputs,
    )


def _options(folder: Path) -> dict[str, object]:
    """Return how the runtime is to open the model of a folder that tersor wrote."""
    try:
        options = json.loads((folder / "tersor.json").read_text(encoding="utf-8")).get("options", {})
    except (OSError, ValueError):
        return {}
    return options if isinstance(options, dict) else {}


def _ends(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the inputs and outputs of a graph."""
    if path.suffix == ".onnx":
        import onnx

        graph = onnx.load(path, load_external_data=False).graph
        weights = {tensor.name for tensor in graph.initializer}
        inputs = tuple(value.name for value in graph.input if value.name not in weights)
        return inputs, tuple(value.name for value in graph.output)
    if path.suffix == ".pte":
        from tersor.exporting.executorch_runtime import shapes_of

        try:
            shapes, count = shapes_of(path)  # such a file has no names
        except RuntimeError as error:
            raise ModelError(
                f"ExecuTorch cannot load {path.name}: {error}. Export the model again."
            ) from error
        return tuple(f"input_{i}" for i in range(len(shapes))), tuple(f"output_{i}" for i in range(count))
    from tersor._extras import require

    openvino = require("openvino", extra="openvino", purpose="Reading an OpenVINO graph")
    graph = openvino.Core().read_model(path)
    return tuple(p.get_any_name() for p in graph.inputs), tuple(p.get_any_name() for p in graph.outputs)


def as_module(artefact: "Artefact", *, threads: int = 1) -> "nn.Module":
    """Return a module whose `forward` runs the file; its parameters have the names of the file's inputs."""
    import torch
    from torch import Tensor, nn

    from tersor.exporting.opening import open_artefact

    session = open_artefact(artefact, threads=threads)
    names = [re.sub(r"\W", "_", name) for name in artefact.inputs]
    kind = signatures.Parameter.POSITIONAL_OR_KEYWORD
    signature = signatures.Signature([signatures.Parameter(name, kind) for name in names])

    def forward(*positional: Tensor, **named: Tensor) -> Tensor:
        bound = signature.bind(*positional, **named).arguments
        return torch.from_numpy(session([bound[name].numpy() for name in names])[0])

    forward.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]  # functions carry attributes
    module = nn.Module()
    module.forward = forward
    return module


def example_of(artefact: "Artefact") -> "Inputs":
    """Return random inputs of the shapes that an ONNX file declares; sizes that vary become 1.

    Raises:
        ModelError: for other files, or element types that are not plain numbers.
    """
    from tersor.cli.example import random_inputs

    if artefact.path.suffix != ".onnx":
        raise ModelError(f"{artefact.path.name} does not tell its shapes; give `--data` or `--input`.")
    import onnx

    graph = onnx.load(artefact.path, load_external_data=False).graph
    specs = []
    for value in graph.input:
        if value.name in artefact.inputs:
            kind = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
            shape = "x".join(str(axis.dim_value or 1) for axis in kind.shape.dim) or "1"
            specs.append(f"{dtype}:{shape}")
    return random_inputs(tuple(specs))


def to_artefact(
    reference: str, model: "nn.Module | None", inputs: "Inputs", path: Path, runtime: str
) -> "Artefact":
    """Return the artefact of `reference`: as it is where it is a file, else `model` exported to `path`."""
    if model is None:
        return find_artefact(reference)
    from tersor.exporting.export import export

    return export(model, inputs, path, runtime)
