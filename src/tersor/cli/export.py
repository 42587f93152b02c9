"""`tersor export`: a model as a file of a runtime or of Keras, compared with the model before it counts."""

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tersor.cli.answer import Json, refuse_taken, show
from tersor.cli.example import NO_EXAMPLE, ExampleFlags
from tersor.cli.flags import NO_MODEL, ModelFlags
from tersor.errors import ArgumentError, ExportError

if TYPE_CHECKING:
    from torch import nn

    from tersor.exporting.artefact import Artefact
    from tersor.loading.inputs import Inputs

#: Runtime, or the framework that it goes back to -> endings of its file, the usual one first.
_ENDINGS = {
    "onnxruntime": (".onnx",),
    "openvino": (".xml", ".onnx"),
    "torch": (".pt2",),
    "torch-compile": (".pt2",),
    "aotinductor": (".pt2",),
    "executorch": (".pte",),
    "keras": (".keras",),
}
#: Largest difference of a converted graph from the file it was made from, over the largest output.
_CLOSE = 1e-3


def export(
    model: str,
    *,
    to: str = "onnxruntime",
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    example: ExampleFlags = NO_EXAMPLE,
    loading: ModelFlags = NO_MODEL,
    json: Json = False,
) -> int:
    """Write MODEL, unchanged, as a file of a runtime. The file is run and compared with the model before it counts.

    For example, `tersor export timm:resnet18 --to onnxruntime --input 2x3x224x224 -o resnet18.onnx`

    A network that came from Keras goes back with `--to keras`, which needs no example:
    `tersor export mlp.keras --weights trained/model.safetensors --to keras -o trained.keras`

    Args:
        model: as for `tersor optimize`.
        to: a runtime, such as onnxruntime (or onnx), openvino, executorch or torch; `tersor doctor` lists those at
            hand. Or keras.
        output: the file to write, such as model.onnx, model.xml (OpenVINO), model.pte (ExecuTorch), model.pt2 (torch)
            or model.keras.
        example: what the model is run on.
        loading: how to open the model.
        json: print JSON.
    """
    from tersor._check import one_of
    from tersor.cli.example import built_or_random
    from tersor.cli.opened import is_file, load
    from tersor.cli.working import working
    from tersor.exporting.export import RUNTIMES
    from tersor.exporting.export import export as write

    runtime = {"onnx": "onnxruntime"}.get(to, to)
    one_of("to", runtime, (*RUNTIMES, "keras"))
    path = _path(output, runtime)
    if is_file(model) and not model.endswith(".onnx"):
        raise ArgumentError(f"{model} is a file of a runtime already. Give the model that it was made from.")
    network = load(model, loading).eval()
    if runtime == "keras":
        return _back_to_keras(network, path, example, json=json)
    _, inputs = built_or_random(network, example)
    with tempfile.TemporaryDirectory(prefix=".tersor-", dir=path.absolute().parent) as folder:
        with working("writing the file and comparing it with the model"):
            made = write(network, inputs, (Path(folder) / path.name).with_suffix(_written(path)), runtime)
            made = _as_graph(made, inputs, path.name) if path.suffix == ".xml" else made
        for file in Path(folder).iterdir():
            file.rename(path.absolute().with_name(file.name))
    values = asdict(made) | {"path": str(path)}
    lines = [
        f"wrote {path} for {made.runtime}, {made.size_bytes:,} bytes; it agrees with the model",
        f"inputs {', '.join(made.inputs)}; outputs {', '.join(made.outputs)}",
        f"next:  tersor compare {model} {path} ...",
    ]
    show(values, lines, json=json)
    return 0


def _back_to_keras(network: "nn.Module", path: Path, example: ExampleFlags, *, json: bool) -> int:
    """Write a network that came from Keras as a Keras file."""
    from tersor.cli.working import working
    from tersor.exporting.keras_file import export_keras

    if example != NO_EXAMPLE:
        raise ArgumentError("A Keras file declares its inputs itself: leave out `--data` and `--input`.")
    with working("writing the file and comparing it with the model"):
        export_keras(network, path)
    size = path.stat().st_size
    lines = [
        f"wrote {path} for Keras, {size:,} bytes; it agrees with the model",
        f"next:  keras.saving.load_model({str(path)!r}), with any backend; it needs no class of its own",
    ]
    show({"runtime": "keras", "path": str(path), "size_bytes": size}, lines, json=json)
    return 0


def _path(output: Path | None, runtime: str) -> Path:
    """Return where to write, after checking that it is free and has an ending that the runtime opens."""
    endings = _ENDINGS.get(runtime, (".onnx",))
    path = output or Path("model" + endings[0])
    if path.suffix not in endings:
        raise ArgumentError(f"A file for {runtime} ends in {' or '.join(endings)}, got {path.name!r}.")
    refuse_taken(path)
    return path


def _written(path: Path) -> str:
    """Return the ending of what is written first: graphs of OpenVINO are made from an ONNX file."""
    return ".onnx" if path.suffix == ".xml" else path.suffix


def _as_graph(made: "Artefact", inputs: "Inputs", name: str) -> "Artefact":
    """Write an ONNX file as a graph of OpenVINO, `.xml` with its weights in `.bin`, and compare the two.

    Raises:
        ExportError: if they disagree.
    """
    import numpy as np

    from tersor._extras import require
    from tersor.exporting.files import sha256_of
    from tersor.exporting.opening import open_artefact
    from tersor.loading.inputs import to_numpy

    openvino = require("openvino", extra="openvino", purpose="Writing a graph of OpenVINO")
    path = made.path.with_name(name)
    openvino.save_model(openvino.Core().read_model(made.path), path, compress_to_fp16=False)
    graph = replace(
        made,
        path=path,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size + path.with_suffix(".bin").stat().st_size,
    )
    arrays = to_numpy(inputs)
    expected, found = open_artefact(made)(arrays), open_artefact(graph)(arrays)
    far = max(
        float(np.abs(a - b).max() / (np.abs(a).max() + 1e-12)) for a, b in zip(expected, found, strict=True)
    )
    if not far <= _CLOSE:
        raise ExportError(
            f"{name} differs from the file that it was made from by {far:.1%}. Write it as .onnx instead."
        )
    made.path.unlink()
    return graph
