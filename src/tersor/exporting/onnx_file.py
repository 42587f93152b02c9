"""Write a captured program as an ONNX file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tersor.errors import ExportError
from tersor.exporting.integers import OPSET, pack, translations
from tersor.exporting.program import Program, first_line
from tersor.exporting.silence import silence

#: A protobuf file holds at most 2 GB; the graph around the weights needs some of it.
_ONE_FILE_BYTES = 1_900_000_000


def write_onnx(program: Program, path: Path, changes: Sequence[Callable[[Any], None]] = ()) -> None:
    """Write `program` to `path` with its weights inside, and beside it as `<name>.data` above 1.9 GB.

    Args:
        program: what to write.
        path: the file.
        changes: what is done to the written graph for one runtime, in place.

    Raises:
        ExportError: if an operation has no ONNX translation, naming it.
    """
    with torch.no_grad(), silence():
        try:
            written = torch.onnx.export(
                program.graph,
                program.arguments,
                dynamo=True,
                input_names=list(program.inputs),
                output_names=list(program.outputs),
                dynamic_shapes=(_axis_names(program),),
                verbose=False,
                **_integers(program),
            )
        except Exception as error:
            raise ExportError(
                f"The model cannot be written as ONNX: {_root(error)} "
                "Replace that operation by ones that ONNX has, or export with runtime='torch'."
            ) from error
        if written is None:
            raise ExportError(
                "torch.onnx.export gave no program. Install the tested versions of torch and onnxscript."
            )
        pack(written)
        for change in changes:
            change(written)
        written.save(path, external_data=_weight_bytes(program) > _ONE_FILE_BYTES)


def _axis_names(program: Program) -> tuple[dict[int, str], ...]:
    """Return for each input the axes that vary, by name: `batch`, `sequence`, and `sequence_2` where there are two."""
    nodes = {node.name: node for node in program.graph.graph.nodes}
    names: dict[str, str] = {}
    found: list[dict[int, str]] = []
    for name in program.graph.graph_signature.user_inputs:
        shape = nodes[str(name)].meta["val"].shape
        varying = {axis: str(size) for axis, size in enumerate(shape) if isinstance(size, torch.SymInt)}
        for axis, symbol in varying.items():
            lengths = sum(known.startswith("sequence") for known in names.values())
            names.setdefault(symbol, f"sequence_{lengths + 1}".removesuffix("_1") if axis else "batch")
        found.append({axis: names[symbol] for axis, symbol in varying.items()})
    return tuple(found)


def _integers(program: Program) -> dict[str, Any]:
    """Return what the exporter has to know about the integer operators of a quantized model."""
    if program.rounded is None:
        return {}
    return {"custom_translation_table": translations(), "opset_version": OPSET}


def _weight_bytes(program: Program) -> int:
    return sum(tensor.nbytes for tensor in program.graph.state_dict.values())


def _root(error: BaseException) -> str:
    """Return the innermost cause: the exporter wraps it in pages of its own report."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
