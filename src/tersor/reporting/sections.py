"""What stands in a report, in the order that a reader needs it."""

import re
from dataclasses import dataclass

from tersor.reporting import front, pictures, spread, tables, words
from tersor.reporting.details import ChangedAnswer
from tersor.reporting.heat import Heat, heat, overview
from tersor.reporting.record import Estimate, Record
from tersor.reporting.svg import Picture
from tersor.reporting.tables import Table

#: The one kind of picture that a record may bring along.
_PNG = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+=*")


@dataclass(frozen=True, slots=True)
class Highlight:
    """A number to remember: its name, itself, and its interval or what it is against."""

    label: str
    value: str
    range: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page; `folded` puts the tables, twins of the pictures, behind a line to open."""

    anchor: str
    title: str
    note: str = ""
    prose: str = ""
    steps: tuple[str, ...] = ()
    pictures: tuple[tuple[str, Picture], ...] = ()
    tables: tuple[Table, ...] = ()
    folded: bool = True
    heat: Heat | None = None
    gallery: tuple[ChangedAnswer, ...] = ()
    code: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show but the title."""
        shown = (self.prose, self.steps, self.pictures, self.tables, self.heat, self.gallery, self.code)
        return not any(shown)


def sections(record: Record) -> list[Section]:
    """Return the parts of the page that have something to show."""
    every = (*_changes(record), *_behaviour(record), *_confidence(record), *_circumstances(record))
    return [section for section in every if not section.empty]


def _changes(record: Record) -> tuple[Section, ...]:
    return (
        Section(
            anchor="comparison",
            title="Before and after",
            note=" ".join(filter(None, (record.conditions, record.aim.target_because))),
            tables=_filled(tables.comparison(record)),
        ),
        Section(
            anchor="candidates",
            title="What was tried",
            note="Numbers in the picture are those of the rows below; vertical bars are intervals; the ring marks what "
            "is shipped." if record.candidates else "",
            pictures=_one(front.pareto(record)),
            tables=_filled(tables.trials(record)) if record.candidates else (),
            folded=False,
        ),
        Section(
            anchor="layers",
            title="What was done to which layer",
            steps=record.shipped.recipe,
            tables=_filled(tables.layers(record)),
        ),
        Section(
            anchor="operators",
            title="Operators of the file",
            note="What the runtime is given, before it rewrites the graph for itself.",
            tables=_filled(tables.operators(record)),
        ),
        Section(
            anchor="sensitivity",
            title="Sensitivity of each layer",
            note="How much of the outputs changes when only this layer does, without any retraining: half of its units "
            "gone, or its numbers rounded. A stronger color changes more.",
            pictures=_one(overview(heat(record))),
            heat=heat(record),
        ),
        Section(
            anchor="slices",
            title="Quality by part of the data",
            note="On the search split; the largest loss comes first. A mean can hide a class that is lost.",
            tables=_filled(tables.slices(record)),
        ),
        Section(
            anchor="changed",
            title="Answers that changed",
            note="Samples of the search split, those that the original had right first. They are part of your data, "
            "and shown because it was asked for.",
            gallery=tuple(answer for answer in record.changed if _PNG.fullmatch(answer.picture)),
            tables=_filled(tables.changed(record)),
        ),
    )  # fmt: skip


def _behaviour(record: Record) -> tuple[Section, ...]:
    return (
        Section(
            anchor="latency",
            title="Time of one call",
            pictures=_one(spread.latency(record)),
            tables=_filled(tables.latencies(record)),
        ),
        Section(
            anchor="training",
            title="Training",
            pictures=pictures.curves(record),
            tables=_filled(tables.curves(record)),
        ),
    )


def _confidence(record: Record) -> tuple[Section, ...]:
    claim = record.claim
    return (
        Section(
            anchor="certificate",
            title="The certificate in words",
            prose=claim.paragraph if claim else "",
            tables=_filled(tables.pairs("Numbers of the certificate", claim.numbers)) if claim else (),
        ),
        Section(
            anchor="baselines",
            title="Free baselines",
            note="The original model in runtimes and settings that cost nothing; speed-ups count from the best.",
            tables=_filled(tables.baselines(record)),
        ),
        Section(
            anchor="roofline",
            title="Roofline",
            note="The line is the most that this machine does in single precision, as measured: on the slope memory "
            "sets the limit, right of it arithmetic. What stays in the caches may lie above the slope, and integers "
            "above the line. The dash over each model is its own limit, and the percentage how much of it is reached.",
            pictures=_one(pictures.roofline(record)),
            tables=_filled(tables.roofline(record)),
        ),
        Section(
            anchor="dropped", title="Dropped candidates, and why", tables=_filled(tables.dropped(record))
        ),
    )


def _circumstances(record: Record) -> tuple[Section, ...]:
    budget = "" if record.budget_s is None else f"The budget was {words.seconds(record.budget_s)}."
    mappings = (("Machine", record.machine), ("Versions", record.versions), ("Seeds", record.seeds))
    environment = [table for name, values in mappings for table in _filled(tables.pairs(name, values))]
    return (
        Section(
            anchor="budget",
            title="Data and time",
            note=budget,
            steps=tuple(f"left out: {part}" for part in record.omitted),
            tables=_filled(tables.splits(record)) + _filled(tables.phases(record)),
        ),
        Section(anchor="environment", title="Environment", tables=tuple(environment)),
        Section(
            anchor="command",
            title="Reproduce",
            note="The command that made this report.",
            code=record.command,
        ),
    )


def _filled(table: Table) -> tuple[Table, ...]:
    return (table,) if table.rows else ()


def _one(picture: Picture | None) -> tuple[tuple[str, Picture], ...]:
    return () if picture is None else (("", picture),)


def highlights(record: Record) -> list[Highlight]:
    """Return the few numbers to remember, of what is shipped against the base."""
    if record.chosen is None:
        return []
    base, shipped = record.base, record.shipped
    found = (
        _estimate(_pace(shipped.speedup), shipped.speedup, words.factor),
        _ratio("smaller", base.size_bytes, shipped.size_bytes),
        _estimate(f"{record.aim.metric}, certified data", shipped.certified, words.quality),
        _ratio("less memory", base.peak_bytes, shipped.peak_bytes),
    )
    return [item for item in found if item]


def _pace(speedup: Estimate | None) -> str:
    """Return what a speed-up is called: an answer that is smaller may be slower."""
    slower = speedup is not None and speedup.value is not None and speedup.value < 1
    return "as fast" if slower else "faster"


def _estimate(label: str, estimate: Estimate | None, write) -> Highlight | None:
    if estimate is None or estimate.value is None:
        return None
    ends = ""
    if estimate.low is not None and estimate.high is not None:
        ends = f"{write(estimate.low)} to {write(estimate.high)} ({100 * estimate.confidence:g}%)"
    return Highlight(label, write(estimate.value), ends)


def _ratio(label: str, before: float | None, after: float | None) -> Highlight | None:
    """A gain of less than a twentieth is not worth remembering; the comparison still tells it."""
    if not before or not after or before / after < 1.05:
        return None
    return Highlight(label, words.factor(before / after), f"{words.size(before)} to {words.size(after)}")
