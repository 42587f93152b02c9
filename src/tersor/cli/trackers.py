"""Experiment trackers: `--track tensorboard:DIR`, `mlflow:PLACE` or `wandb:PROJECT`, through their public clients.

A tracker listens to the events of a search as any other listener does, and is given the record at the end. Nothing
is sent anywhere unless a tracker is named.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from tersor._check import one_of
from tersor._extras import require
from tersor.errors import ArgumentError
from tersor.reporting.clean import clean, clean_text
from tersor.reporting.record import Record, Row
from tersor.search.events import Event

_TRACKERS: ContextVar[tuple["Tracker", ...]] = ContextVar("trackers", default=())


class Sink(Protocol):
    """What all trackers can do."""

    def number(self, name: str, value: float, step: int) -> None:
        """Write one number."""
        ...

    def text(self, name: str, text: str) -> None:
        """Write a text."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


@dataclass(slots=True)
class Tracker:
    """A listener that hands on what happens to a tracker.

    Attributes:
        sink: the tracker's client.
        lines: what was said so far.
    """

    sink: Sink
    lines: list[str] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Hand on one event: counted phases as a share, all others as lines of the log."""
        if event.total:
            self.sink.number(f"progress/{event.phase}", event.done / event.total, event.done)
        else:
            self.lines.append(clean_text(f"{event.phase:<10}{event.text}"))

    def finish(self, record: Record) -> None:
        """Hand on the numbers of every candidate, the training curves and the verdict."""
        record = clean(record)
        for step, row in enumerate((record.base, *record.candidates)):
            for name, value in numbers(row).items():
                self.sink.number(f"candidate/{name}", value, step)
        for curve in record.curves:
            for place, value in zip(curve.steps, curve.values, strict=True):
                if place is not None and value is not None:
                    self.sink.number(f"{curve.quantity}/{curve.name}", value, int(place))
        for name, value in numbers(record.shipped).items():
            self.sink.number(f"shipped/{name}", value, 0)
        self.sink.text("verdict", record.verdict.sentence)
        self.sink.text("limit", record.aim.limit)
        names = [f"{step} {row.name}" for step, row in enumerate((record.base, *record.candidates))]
        self.sink.text("candidates", "\n".join(names))

    def close(self) -> None:
        """Write the log and end."""
        self.sink.text("log", "\n".join(self.lines))
        self.sink.close()


def numbers(row: Row) -> dict[str, float]:
    """Return what was measured of a model, by names with units.

    Example:
        >>> numbers(Row(name="original", size_bytes=10))
        {'size_bytes': 10.0}
    """
    found = {
        "quality": row.quality and row.quality.value,
        "certified": row.certified and row.certified.value,
        "speedup": row.speedup and row.speedup.value,
        "median_s": row.latency and row.latency.median_s,
        "size_bytes": row.size_bytes,
        "peak_bytes": row.peak_bytes,
        "parameters": row.parameters,
        "macs": row.macs,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


class TensorBoard:
    """Event files in a folder, for `tensorboard --logdir FOLDER`."""

    def __init__(self, place: str) -> None:
        require("tensorboard", extra="track", purpose="Tracking with TensorBoard")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(place)

    def number(self, name: str, value: float, step: int) -> None:
        """Write a scalar."""
        self.writer.add_scalar(name, value, step)

    def text(self, name: str, text: str) -> None:
        """Write a text, indented so that Markdown leaves it as it is."""
        self.writer.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()))

    def close(self) -> None:
        """Flush the file."""
        self.writer.close()


class MLflow:
    """A run of the experiment `tersor` in the tracking store at a place."""

    def __init__(self, place: str) -> None:
        mlflow = require("mlflow", extra="mlflow", purpose="Tracking with MLflow")
        self.client = mlflow.MlflowClient(tracking_uri=place)
        known = self.client.get_experiment_by_name("tersor")
        experiment = known.experiment_id if known else self.client.create_experiment("tersor")
        self.run = self.client.create_run(experiment).info.run_id

    def number(self, name: str, value: float, step: int) -> None:
        """Log a metric; what its names may not hold becomes `_`."""
        self.client.log_metric(self.run, re.sub(r"[^\w\-. /]", "_", name), value, step=step)

    def text(self, name: str, text: str) -> None:
        """Log a text as an artefact."""
        self.client.log_text(self.run, text, f"{name}.txt")

    def close(self) -> None:
        """End the run."""
        self.client.set_terminated(self.run)


class WandB:
    """A run of a Weights & Biases project; `WANDB_MODE=offline` keeps it on this machine."""

    def __init__(self, place: str) -> None:
        wandb = require("wandb", extra="wandb", purpose="Tracking with Weights & Biases")
        self.run: Any = wandb.init(project=place)

    def number(self, name: str, value: float, step: int) -> None:
        """Log a number with its own step; the client's global step only ever grows."""
        self.run.log({name: value, f"{name}/step": step})

    def text(self, name: str, text: str) -> None:
        """Keep a text in the summary."""
        self.run.summary[name] = text

    def close(self) -> None:
        """End the run."""
        self.run.finish()


#: Prefix -> what is tracked with.
TRACKERS: dict[str, Callable[[str], Sink]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def open_tracker(place: str) -> Tracker:
    """Return a tracker: pass it as `on_event`, then call `finish(result.record())` and `close()`.

    Args:
        place: `tensorboard:DIR`, `mlflow:URI` (such as `mlflow:sqlite:///runs.db`) or `wandb:PROJECT`.

    Raises:
        ArgumentError: if it is not of this form.
        MissingExtraError: if the client is not installed.
    """
    name, colon, where = place.partition(":")
    one_of("track", name, TRACKERS)
    if not colon or not where:
        raise ArgumentError(f"`--track` takes {name}:PLACE, such as tensorboard:runs, got {place!r}.")
    return Tracker(TRACKERS[name](where))


@contextmanager
def tracking(places: Sequence[str]) -> Iterator[None]:
    """Track what happens inside; every tracker is closed at the end, come what may."""
    trackers = tuple(open_tracker(place) for place in places)
    token = _TRACKERS.set(trackers)
    try:
        yield
    finally:
        _TRACKERS.reset(token)
        for tracker in trackers:
            tracker.close()


def trackers() -> tuple[Tracker, ...]:
    """Return the trackers of the command that is running."""
    return _TRACKERS.get()
