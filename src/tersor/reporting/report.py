"""report.html and report.json: everything about one run in one page without scripts."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tersor.reporting import tables, words
from tersor.reporting.clean import clean
from tersor.reporting.record import Estimate, Record
from tersor.reporting.tables import Table

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Highlight:
    """A number to remember: its name, itself, and its interval or what it is against."""

    label: str
    value: str
    range: str = ""


@dataclass(frozen=True, slots=True)
class Heat:
    """A heat map as a table: for each layer a word and a level in [0, 1] a method."""

    caption: str
    methods: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page; `folded` puts the tables, twins of the pictures, behind a line to open."""

    anchor: str
    title: str
    note: str = ""
    prose: tuple[str, ...] = ()
    pictures: tuple = ()
    tables: tuple[Table, ...] = ()
    kind: str = ""
    folded: bool = True
    heat: Heat | None = None
    code: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show but the title."""
        return not (self.prose or self.pictures or self.tables or self.heat or self.code)


def render_json(record: Record) -> str:
    """Return the record as JSON, cleaned of control codes, home paths and secrets."""
    return clean(record).to_json() + "\n"


def render_html(record: Record) -> str:
    """Return one page that explains the run: it needs no network, no scripts and no other file.

    The page carries a content security policy that allows styles only; all text is escaped; every picture has a
    table of the same numbers.
    """
    from tersor.reporting import pictures  # draws with Altair, which takes a second to import

    record = clean(record)
    return _page("report.html.j2").render(
        record=record,
        css=_css(),
        date=_date(record),
        highlights=_highlights(record),
        margin=pictures.margin(record),
        sections=[section for section in _sections(record) if not section.empty],
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _page(name: str):
    return _environment().get_template(name)


@cache
def _css() -> Markup:
    return Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8"))


def _date(record: Record) -> str:
    return datetime.fromisoformat(record.created).strftime("%-d %B %Y, %H:%M %Z").strip(" ,")


def _highlights(record: Record) -> list[Highlight]:
    base, shipped = record.base, record.shipped
    found = [
        _estimate(
            "faster" if record.aim.goal != "throughput" else "more per second", shipped.speedup, words.factor
        ),
        _ratio("smaller", base.size_bytes, shipped.size_bytes),
        _estimate(f"{record.aim.metric}, certification split", shipped.certified, words.quality),
        _ratio("less memory", base.peak_bytes, shipped.peak_bytes),
    ]
    return [item for item in found if item and record.chosen is not None]


def _estimate(label: str, estimate: Estimate | None, write) -> Highlight | None:
    if estimate is None or estimate.value is None:
        return None
    ends = ""
    if estimate.low is not None and estimate.high is not None:
        ends = f"{100 * estimate.confidence:g} % interval {write(estimate.low).rstrip('×')} to {write(estimate.high)}"
    return Highlight(label, write(estimate.value), ends)


def _ratio(label: str, before: float | None, after: float | None) -> Highlight | None:
    if not before or not after:
        return None
    return Highlight(label, words.factor(before / after), f"{words.size(before)} to {words.size(after)}")


def _sections(record: Record) -> list[Section]:
    return [*_what(record), *_how_sure(record), *_context(record)]


def _what(record: Record) -> list[Section]:
    from tersor.reporting import pictures

    return [
        Section(anchor="comparison", title="Before and after", tables=_filled(tables.comparison(record)), kind="comparison",
                note=record.conditions),
        Section(anchor="candidates", title="What was tried", pictures=_one(pictures.pareto(record)),
                tables=_filled(tables.trials(record)), folded=False,
                note="Numbers in the picture are those of the rows below, counted from the original. Bars are intervals."),
        Section(anchor="layers", title="What was done to which layer", tables=_filled(tables.layers(record))),
        Section(anchor="sensitivity", title="What each layer can bear", heat=_heat(record),
                note="Loss of quality when only this layer is changed. Darker loses more."),
        Section(anchor="slices", title="Who pays for it", tables=_filled(tables.slices(record)),
                note="A mean can hide a class that is lost. Largest loss first."),
    ]  # fmt: skip


def _how_sure(record: Record) -> list[Section]:
    from tersor.reporting import pictures

    claim = record.claim
    numbers = _filled(tables.pairs("Numbers of the certificate", claim.numbers)) if claim else ()
    return [
        Section(anchor="latency", title="Time of one call", pictures=_one(pictures.latency(record)),
                tables=_filled(tables.latencies(record))),
        Section(anchor="training", title="Training", pictures=pictures.curves(record), tables=_filled(tables.curves(record))),
        Section(anchor="certificate", title="The certificate in words", prose=(claim.paragraph,) if claim else (),
                tables=numbers),
        Section(anchor="baselines", title="What costs nothing", tables=_filled(tables.baselines(record)),
                note="The original model in other runtimes and settings. Speed-ups are counted against the best of these."),
        Section(anchor="roofline", title="What the machine can do", pictures=_one(pictures.roofline(record)),
                tables=_filled(tables.roofline(record))),
        Section(anchor="dropped", title="What was left, and why", tables=_filled(tables.dropped(record))),
    ]  # fmt: skip


def _context(record: Record) -> list[Section]:
    budget = "" if record.budget_s is None else f"Budget: {words.seconds(record.budget_s)}."
    return [
        Section(anchor="budget", title="Data and time", note=budget,
                tables=_filled(tables.splits(record)) + _filled(tables.phases(record))),
        Section(anchor="environment", title="Where it was measured",
                tables=_filled(tables.pairs("Machine", record.machine)) + _filled(tables.pairs("Versions", record.versions))
                + _filled(tables.pairs("Seeds", record.seeds))),
        Section(anchor="command", title="Do it again", code=record.command),
    ]  # fmt: skip


def _filled(table: Table) -> tuple[Table, ...]:
    return (table,) if table.rows else ()


def _one(picture) -> tuple:
    return () if picture is None else (("", picture),)


def _heat(record: Record) -> Heat | None:
    methods = tuple(dict.fromkeys(name for layer in record.layers for name in layer.sensitivity))
    rows = [
        (layer.name, [layer.sensitivity.get(name) for name in methods])
        for layer in record.layers
        if layer.sensitivity
    ]
    top = max((value for _, row in rows for value in row if value is not None), default=0.0)
    if not methods:
        return None
    cells = tuple(
        (
            name,
            tuple((words.quality(v), max(0.0, v / top) if v is not None and top > 0 else 0.0) for v in row),
        )
        for name, row in rows
    )
    return Heat(f"Loss of {record.aim.metric} by layer and method", methods, cells)
