"""`tersor quantize`: a model in integers, without a search."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tersor.cli.answer import Json, refuse_taken, show
from tersor.cli.flags import NO_MODEL, ModelFlags

if TYPE_CHECKING:
    from tersor.loading.task import Task
    from tersor.quantization.hardware import Scheme


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class RoundFlags:
    """Which integers, and how they are found."""

    scheme: Literal["auto", "static", "dynamic", "int8", "int4"] = "auto"
    "Integers for weights and activations (static, dynamic), or for weights alone (int8, int4)."

    recipe: Literal["quick", "auto"] = "quick"
    "Quick, or auto: several algorithms tried on calibration data."

    samples: int = 256
    "Samples to calibrate with."


_USUAL = RoundFlags()


def quantize(
    model: str,
    *,
    data: str,
    to: Literal["onnxruntime", "openvino", "executorch"] = "onnxruntime",
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    how: RoundFlags = _USUAL,
    loading: ModelFlags = NO_MODEL,
    json: Json = False,
) -> int:
    """Write MODEL as a file that computes in integers, and compare its quality with the original's.

    No training and no certificate; whether it is faster here is what `tersor compare` measures.

    For example, `tersor quantize mypkg.models:build --data mypkg.data:splits -o int8.onnx`

    Args:
        model: as for `tersor optimize`.
        data: as for `tersor optimize`; the calibration part sets the ranges, the search part judges. With inputs drawn
            at random (`random:3x224x224`) no ranges are taken from them.
        to: the runtime that the file is for; each rounds in other places.
        output: file to write; `model_quantized.onnx`, or `.pte` for ExecuTorch, by default.
        how: which integers, and how they are found.
        loading: how to open the model.
        json: print JSON.
    """
    from tersor.cli.opened import as_module, load
    from tersor.cli.quality import difference, judge
    from tersor.cli.working import working
    from tersor.errors import ArgumentError
    from tersor.exporting.export import export
    from tersor.exporting.files import ending_of
    from tersor.loading.build import build_task
    from tersor.loading.split import HARMLESS
    from tersor.quantization.quantize import quantize as round_off

    ending = ending_of(to)
    output = output or Path("model_quantized" + ending)
    if output.suffix != ending:
        raise ArgumentError(f"A file for {to} ends in {ending}, got {output.name!r}.")
    refuse_taken(output)
    network = load(model, loading).eval()
    task = build_task(network, data, shares=HARMLESS).task
    batches = [batch.inputs for batch in task.calibration.batches(32, limit=how.samples)]
    scheme = _scheme(task, how, to)
    with working("calibrating and rounding"):
        integers = round_off(network, task.inputs, batches, scheme=scheme, recipe=how.recipe)
    place = tempfile.TemporaryDirectory(prefix=".tersor-", dir=output.absolute().parent)
    with place as folder, working("writing the file and comparing it"):
        made = export(integers, task.inputs, Path(folder) / output.name, to)
        before, after = judge(network, task), judge(as_module(made), task)
        for file in Path(folder).iterdir():
            file.rename(output.absolute().with_name(file.name))
    values = {
        "path": str(output),
        "size_bytes": made.size_bytes,
        "layers": list(integers.integers),
        "metric": before.metric,
        "quality": [before.value, after.value],
        "options": dict(made.options),
    }
    lines = [
        f"{len(integers.integers)} layers in integers; {made.size_bytes:,} bytes",
        f"original   {before.words()}",
        f"quantized  {after.words()}; change {difference(before, after)}",
        f"wrote {output}",
        f"next:  tersor compare {model} {output} --data {data}     is it faster here?",
    ]
    if task.drawn:
        lines.insert(
            0, "the inputs were drawn at random and are not your data: quality is about such inputs only"
        )
    show(values, lines, json=json)
    return 0


def _scheme(task: "Task", how: RoundFlags, to: str) -> "Scheme | str":
    """Return the integers to use, where `to` rounds.

    Raises:
        ArgumentError: if it has no kernels for what was asked for, or ranges would be taken from random inputs.
    """
    from tersor.errors import ArgumentError
    from tersor.loading.onnx.graph_model import GraphModel
    from tersor.quantization.hardware import detect, scheme_for
    from tersor.quantization.onnx_graph import graph_schemes
    from tersor.quantization.schemes import KERNELS, schemes

    model = task.model
    is_graph = isinstance(model, GraphModel)
    suiting = graph_schemes(model, to) if is_graph else schemes(model, task.inputs, to)
    if how.scheme not in ("auto", *KERNELS[to]):
        raise ArgumentError(
            f"{to} has no fast kernels for `--scheme {how.scheme}`, only for {', '.join(KERNELS[to])}."
        )
    kind = _uncalibrated(task, how, suiting) if task.drawn else how.scheme
    if is_graph or not suiting:
        return kind
    return scheme_for(detect(), suiting[0] if kind == "auto" else kind, to)


def _uncalibrated(task: "Task", how: RoundFlags, suiting: tuple[str, ...]) -> str:
    """Return the scheme for inputs that are drawn at random, from which no range may be taken.

    Raises:
        ArgumentError: if what was asked for, or all that suits the model, takes ranges from data.
    """
    from tersor.errors import ArgumentError
    from tersor.search.unlearned import unlearned

    able = unlearned(suiting if how.scheme == "auto" else (how.scheme,), task)
    if not able or how.recipe == "auto":
        raise ArgumentError(
            "Static ranges and recipes are taken from data, and the inputs are drawn at random: they would be wrong "
            "for real inputs. Pass your data, or ask for `--scheme dynamic`, `int8` or `int4` with `--recipe quick`; "
            "ExecuTorch has kernels for none of these."
        )
    return able[0]
