"""`tersor export`: a model as a file of a runtime, compared with the model before it counts."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tersor.cli.answer import Json, refuse_taken, show
from tersor.cli.example import NO_EXAMPLE, ExampleFlags
from tersor.cli.flags import ModelFlags
from tersor.errors import ArgumentError

_NO_MODEL = ModelFlags()
#: Runtime -> suffix of its file, where it is not `.onnx`.
_SUFFIXES = {"torch": ".pt2", "torch-compile": ".pt2", "aotinductor": ".pt2"}


def export(
    model: str,
    *,
    to: str = "onnxruntime",
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    example: ExampleFlags = NO_EXAMPLE,
    loading: ModelFlags = _NO_MODEL,
    json: Json = False,
) -> int:
    """Write MODEL, unchanged, as a file of a runtime. The file is run and compared with the model before it counts.

    For example, `tersor export timm:resnet18 --to onnxruntime --input 2x3x224x224 -o resnet18.onnx`

    Args:
        model: as for `tersor optimize`.
        to: a runtime, such as onnxruntime (or onnx), openvino or torch; `tersor doctor` lists those at hand.
        output: the file to write; `model` with the usual ending of the runtime when left out.
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
    one_of("to", runtime, RUNTIMES)
    path = output or Path("model" + _SUFFIXES.get(runtime, ".onnx"))
    refuse_taken(path)
    if is_file(model):
        raise ArgumentError(f"{model} is a file of a runtime already. Give the model that it was made from.")
    network = load(model, loading).eval()
    _, inputs = built_or_random(network, example)
    with tempfile.TemporaryDirectory(prefix=".tersor-", dir=path.absolute().parent) as folder:
        with working("writing the file and comparing it with the model"):
            made = write(network, inputs, Path(folder) / path.name, runtime)
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
