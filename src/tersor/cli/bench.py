"""`tersor bench`: what costs nothing, measured: the model as it is in every runtime, thread count and setting."""

import tempfile
from pathlib import Path

from tersor.cli.answer import Json, show
from tersor.cli.flags import ModelFlags, arguments_of

_NO_MODEL = ModelFlags()


def bench(
    model: str,
    *,
    data: str,
    batch: int = 1,
    seconds: float = 1.5,
    loading: ModelFlags = _NO_MODEL,
    json: Json = False,
) -> int:
    """Race the free baselines of MODEL and say which to use.

    Args:
        model: as for `tersor optimize`.
        data: as for `tersor optimize`; real samples are what is run.
        batch: samples per call.
        seconds: time for each entry.
        loading: how to open the model.
        json: print JSON.
    """
    from tersor.cli.progress import Display
    from tersor.loading.build import build_task
    from tersor.loading.model import load_model
    from tersor.measurement.race import race
    from tersor.search.events import Event

    network = load_model(
        model,
        weights=loading.weights,
        arguments=arguments_of(loading),
        allow_code_execution=loading.allow_code_execution,
    )
    task = build_task(network, data).task
    with Display() as display, tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        found = race(
            task.model,
            task.inputs,
            Path(folder),
            batch=batch,
            seconds=seconds,
            listen=lambda line: display(Event("bench", line)),
        )
    entries = [
        {
            "name": entry.name,
            "threads": entry.threads,
            "speedup": entry.speed and [entry.speed.low, entry.speed.ratio, entry.speed.high],
            "reason": entry.reason,
        }
        for entry in found.entries
    ]
    show({"fastest": found.fastest.name, "entries": entries}, [str(found)], json=json)
    return 0
