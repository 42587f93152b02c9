"""`tersor compare`: two models or files, in turns on this machine, on the same samples."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from tersor.cli.answer import Json, columns, refuse_taken, show
from tersor.cli.claim import NO_CLAIM, ClaimFlags, claim
from tersor.cli.example import NO_EXAMPLE, ExampleFlags
from tersor.cli.flags import NO_MODEL, ModelFlags
from tersor.errors import ArgumentError

if TYPE_CHECKING:
    from torch import nn

    from tersor.exporting.artefact import Artefact
    from tersor.loading.build import Built
    from tersor.loading.inputs import Inputs
    from tersor.measurement.result import Comparison


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class RaceFlags:
    """How two files are measured."""

    runtime: str = "onnxruntime"
    "Runtime for models that are no file yet."

    seconds: float = 10.0
    "Time to measure for."

    batch: int | None = None
    "Samples per call; those of the example when left out."

    threads: int = 1
    "Threads of the runtime."


_USUAL = RaceFlags()


def compare(
    base: str,
    candidate: str,
    *,
    example: ExampleFlags = NO_EXAMPLE,
    how: RaceFlags = _USUAL,
    certificate: ClaimFlags = NO_CLAIM,
    loading: ModelFlags = NO_MODEL,
    json: Json = False,
) -> int:
    """Say how much faster, smaller and better CANDIDATE is than BASE, measured in turns on this machine.

    For example, `tersor compare original.onnx out --data mypkg.data:splits`. Two `.onnx` files need no data: their
    shapes are known, and only speed, size and memory are compared.

    Args:
        base: a model as for `tersor optimize`, an `.onnx` or OpenVINO `.xml` file, or a folder that tersor wrote.
        candidate: likewise.
        example: what to run them on.
        how: how they are measured.
        certificate: with `--max-drop`, whether CANDIDATE, an `.onnx` file that exists already, holds against BASE.
        loading: how to open models.
        json: print JSON.
    """
    from tersor.cli.opened import to_artefact
    from tersor.cli.working import working
    from tersor.measurement.measure import compare as race

    if certificate.max_drop:
        _check_claim(example, certificate)
    models = [_module(reference, loading) for reference in (base, candidate)]
    with tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        built, inputs = _example(base, models, example)
        files = [
            to_artefact(reference, model, inputs, Path(folder) / f"{place}.onnx", how.runtime)
            for place, (reference, model) in enumerate(zip((base, candidate), models, strict=True))
        ]
        # Twelve processes open their file besides the measuring itself.
        with working("measuring both in turns", how.seconds + 8.0):
            speed = race(
                files[0], files[1], inputs, threads=how.threads, seconds=how.seconds, batch=how.batch
            )
        quality = None if built is None else _qualities(built, files, how.threads)
        told = (
            None
            if built is None or not certificate.max_drop
            else claim(built, files, certificate, how.threads)
        )
    values = {"base": base, "candidate": candidate, "speed": asdict(speed), "quality": quality}
    values["speed"]["verdict"] = speed.verdict.name.lower()
    lines = _lines(speed, quality)
    if told is not None:
        values["certificate"] = {
            "holds": told.holds,
            "words": told.words(),
            "folder": str(certificate.output),
        }
        lines += ["", told.words(), f"wrote {certificate.output}/   model.onnx, certificate.json"]
    show(values, lines, json=json)
    return 0 if told is None or told.holds else 3


def _check_claim(example: ExampleFlags, flags: ClaimFlags) -> None:
    """Refuse, before anything slow, a certificate that cannot be made."""
    from tersor.loading.limit import parse_drop

    parse_drop(flags.max_drop)
    if not example.data:
        raise ArgumentError("A certificate needs `--data`, of which the sealed part is read.")
    refuse_taken(flags.output)


def _module(reference: str, loading: ModelFlags) -> "nn.Module | None":
    """Return the module of a reference that is no file yet."""
    from tersor.cli.opened import is_file, load

    return None if is_file(reference) else load(reference, loading)


def _example(
    base: str, models: "list[nn.Module | None]", flags: ExampleFlags
) -> "tuple[Built | None, Inputs]":
    """Bind the data to the first model that is one, or take the shapes that the base's file declares."""
    from tersor.cli.example import built_or_random
    from tersor.cli.opened import as_module, example_of, find_artefact

    model = next((model for model in models if model is not None), None)
    if model is None:
        file = find_artefact(base)
        if not (flags.data or flags.input):
            return None, example_of(file)
        model = as_module(file)
    return built_or_random(model, flags)


def _qualities(built: "Built", files: "list[Artefact]", threads: int) -> dict[str, Any]:
    from tersor.cli.opened import as_module
    from tersor.cli.quality import difference, judge

    before, after = (judge(as_module(file, threads=threads), built.task) for file in files)
    return {
        "metric": before.metric,
        "base": before.value,
        "candidate": after.value,
        "samples": before.samples,
        "difference": difference(before, after),
    }


def _lines(speed: "Comparison", quality: dict[str, Any] | None) -> list[str]:
    from tersor.reporting import words

    before, after = speed.base, speed.candidate
    rows = [("", "base", "candidate", "")]
    rows += [
        (name, words.seconds(a), words.seconds(b), words.factor(a / b))
        for name, a, b in (
            ("median", before.median_s, after.median_s),
            ("p90", before.p90_s, after.p90_s),
            ("p99", before.p99_s, after.p99_s),
            ("opening", before.load_s, after.load_s),
        )
    ]
    rows += [
        (name, words.size(a), words.size(b), words.factor(a / max(b, 1)))
        for name, a, b in (
            ("size", before.size_bytes, after.size_bytes),
            ("memory", before.peak_bytes, after.peak_bytes),
        )
    ]
    if quality:
        pair = (words.quality(quality["base"]), words.quality(quality["candidate"]))
        rows.append((quality["metric"], *pair, quality["difference"]))
    verdict = f"{words.factor(speed.ratio)} (95% {words.factor(speed.low)} to {words.factor(speed.high)}), "
    return [*columns(rows), "", verdict + speed.verdict.value]
