"""`tersor bench`: what costs nothing, measured: the model as it is in every runtime, thread count and setting."""

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from tersor.cli.answer import Json, show
from tersor.cli.flags import NO_MODEL, ModelFlags, arguments_of
from tersor.errors import ArgumentError

if TYPE_CHECKING:
    from tersor.loading.inputs import Inputs
    from tersor.measurement.race import Entry
    from tersor.measurement.result import Measurement


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Sizes:
    """Where the fastest file is timed after the race: throughput against latency."""

    batches: str = ""
    "Batch sizes, such as `1,8,32`."

    lengths: str = ""
    "Lengths of token sequences, such as `16,64,256`."


_NO_SIZES = Sizes()


def bench(
    model: str,
    *,
    data: str | None = None,
    batch: int = 1,
    seconds: float = 1.5,
    sizes: Sizes = _NO_SIZES,
    loading: ModelFlags = NO_MODEL,
    json: Json = False,
) -> int:
    """Race the free baselines of MODEL and say which to use.

    For example, `tersor bench mypkg.models:build --data mypkg.data:splits`

    Args:
        model: as for `tersor optimize`.
        data: as for `tersor optimize`; real samples are what is run, and inputs drawn at random where it is left out.
        batch: samples per call.
        seconds: time for each entry.
        sizes: where to time the fastest file too.
        loading: how to open the model.
        json: print JSON.
    """
    from tersor.cli.progress import Display
    from tersor.loading.build import build_task
    from tersor.loading.model import load_model
    from tersor.loading.split import HARMLESS
    from tersor.measurement.race import race
    from tersor.search.events import Event

    network = load_model(
        model,
        weights=loading.weights,
        arguments=arguments_of(loading),
        allow_code_execution=loading.allow_code_execution,
    )
    task = build_task(network, data, shares=HARMLESS).task
    with Display() as display, tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        found = race(
            task.model,
            task.inputs,
            Path(folder),
            batch=batch,
            seconds=seconds,
            listen=lambda line: display(Event("bench", line)),
        )
        points = _swept(found.fastest, task.inputs, sizes, seconds)
    entries = [
        {
            "name": entry.name,
            "threads": entry.threads,
            "speedup": entry.speed and [entry.speed.low, entry.speed.ratio, entry.speed.high],
            "reason": entry.reason,
        }
        for entry in found.entries
    ]
    answer = {"fastest": found.fastest.name, "entries": entries, "sweep": [asdict(point) for point in points]}
    show(answer, [str(found), *map(_line, points), *_energy(points)], json=json)
    return 0


def _swept(fastest: "Entry", inputs: "Inputs", sizes: Sizes, seconds: float) -> "tuple[Measurement, ...]":
    """Time the fastest file over the grid that was asked for; nothing if none was."""
    from tersor.measurement.sweep import sweep

    batches, lengths = _numbers(sizes.batches), _numbers(sizes.lengths)
    if not (batches or lengths) or fastest.artefact is None:
        return ()
    return sweep(
        fastest.artefact,
        inputs,
        batches=batches or (1,),
        lengths=lengths,
        threads=(fastest.threads,),
        seconds=seconds,
    )


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as `1,8,32`."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ArgumentError(f"Sizes are whole numbers above zero with commas between them, got {text!r}.")
    return tuple(map(int, parts))


def _line(point: "Measurement") -> str:
    length = "" if point.length is None else f", length {point.length}"
    energy = "" if point.energy_j is None else f", {point.energy_j:.3g} J a call"
    return (
        f"batch {point.batch}{length}: {point.median_s * 1e3:.3g} ms (p90 {point.p90_s * 1e3:.3g}, "
        f"p99 {point.p99_s * 1e3:.3g}), {point.throughput_per_s:.4g} samples/s, peak {point.peak_bytes / 1e6:.3g} MB, "
        f"loads in {point.load_s:.2g} s{energy}"
    )


def _energy(points: "tuple[Measurement, ...]") -> list[str]:
    """Say why there is no energy in a sweep, where there is none."""
    from tersor.measurement.energy import energy_missing

    return [f"energy: not measured; {energy_missing()}"] if points and energy_missing() else []
