"""`tersor prune`: a smaller model, proved, without a search."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tersor.cli.answer import Json, columns, refuse_taken, show
from tersor.cli.example import NO_EXAMPLE, ExampleFlags
from tersor.cli.flags import NO_MODEL, ModelFlags

if TYPE_CHECKING:
    from tersor.loading.build import Built


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class RankFlags:
    """What a ratio counts, and how units are ranked."""

    by: Literal["macs", "global", "uniform"] = "macs"
    "What the ratio counts: multiply-adds of the model, units ranked together, or units of every group."

    criterion: str = "magnitude"
    "How units are ranked, such as magnitude, taylor or fisher; most of them need `--data`."


_USUAL = RankFlags()


def prune(
    model: str,
    *,
    ratio: float,
    output: Annotated[Path, Parameter(alias="-o")] = Path("pruned"),
    rank: RankFlags = _USUAL,
    example: ExampleFlags = NO_EXAMPLE,
    loading: ModelFlags = NO_MODEL,
    json: Json = False,
) -> int:
    """Cut the least important channels, heads and features of MODEL, and prove the cut. No training, no certificate.

    Writes a folder with the weights, the plan, and the model as `model.onnx`; a network from Keras also as
    `model.keras`. In Python, `tersor.load(factory, folder)` gives the smaller module back. To get the accuracy back
    and certify it, use `tersor optimize`.

    For example, `tersor prune timm:resnet18 --ratio 0.3 --input 2x3x224x224 -o pruned`

    Args:
        model: as for `tersor optimize`.
        ratio: fraction removed, in [0, 1).
        output: folder to write; it must not exist.
        rank: what is counted and how units are ranked.
        example: what the model is run on.
        loading: how to open the model.
        json: print JSON.
    """
    from tersor.analysis.facts import facts
    from tersor.cli.example import built_or_random
    from tersor.cli.opened import load
    from tersor.cli.working import working
    from tersor.exporting.export import export
    from tersor.exporting.keras_file import back_to_keras
    from tersor.graph.trace import trace
    from tersor.search.verbs import prune as cut
    from tersor.surgery.store import save

    refuse_taken(output)
    network = load(model, loading).eval()
    built, inputs = built_or_random(network, example)
    _refuse_noise(built)
    batches = [] if built is None else list(built.task.calibration.batches(32, limit=256))
    loss = None if built is None else built.task.loss
    with working("tracing, cutting and proving"):
        small, plan = cut(
            network, inputs, ratio=ratio, by=rank.by, criterion=rank.criterion, batches=batches, loss=loss
        )
    with tempfile.TemporaryDirectory(prefix=".tersor-", dir=output.absolute().parent) as place:
        folder = save(small, plan, trace(network, inputs), Path(place) / "made")
        export(small, inputs, folder / "model.onnx")
        written = ["model.safetensors", "surgery.json", "model.onnx", *back_to_keras(small, folder)]
        if output.is_dir():
            output.rmdir()
        folder.rename(output)
    before, after = facts(network, inputs), facts(small, inputs)
    rows = [
        ("", "before", "after"),
        ("parameters", f"{before.parameters:,}", f"{after.parameters:,}"),
        ("multiply-adds", f"{before.macs:,}", f"{after.macs:,}"),
    ]
    values = {
        "folder": str(output),
        "edits": len(plan.edits),
        "parameters": [before.parameters, after.parameters],
        "macs": [before.macs, after.macs],
    }
    if built is not None and built.task.metric.of_model is None:
        from tersor.cli.quality import judge

        first, last = judge(network, built.task), judge(small, built.task)
        rows.append((first.metric, f"{first.value:.4f}", f"{last.value:.4f}"))
        values |= {"metric": first.metric, "quality": [first.value, last.value]}
    show(
        values,
        [
            *columns(rows),
            f"wrote {output}/   {', '.join(written)} (no training was done)",
        ],
        json=json,
    )
    return 0


def _refuse_noise(built: "Built | None") -> None:
    """Raise if the data to refit on is drawn at random.

    Raises:
        ArgumentError: saying what to give instead.
    """
    from tersor.errors import ArgumentError

    if built is not None and built.task.drawn:
        raise ArgumentError(
            "Criteria and refitting learn from data, and these inputs are drawn at random. Give `--data` of your own, "
            "or `--input SHAPE` to cut by the weights alone."
        )
