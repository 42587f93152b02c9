"""The tables of a report as data: one function a table, the same for every format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tersor.reporting import words
from tersor.reporting.details import Slice
from tersor.reporting.record import Latency, Record, Row


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as words; what follows a line end inside a cell is secondary.

    Attributes:
        caption: what the table shows.
        columns: headings; the first column names the row.
        rows: cells, as many to a row as there are columns.
        numeric: indices of the columns that hold numbers.
        marked: index of the row to bring out; None for none.
        kind: a hint for the layout: `comparison`, `counted` (the first column counts), `pairs`, or none.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    marked: int | None = None
    kind: str = ""


def comparison(record: Record) -> Table:
    """Return the base against what is shipped, one quantity a row; factors above 1 are gains."""
    base, shipped = record.base, record.shipped
    rows = [(f"{record.aim.metric}, {where}", *_qualities(base, shipped, part)) for where, part in _PARTS]
    rows += [
        (label, write(read(base)), write(read(shipped)), _gain(read(base), read(shipped), less))
        for label, read, write, less in _QUANTITIES
    ]
    measured = tuple(row for row in rows if row[1:3] != (words.MISSING, words.MISSING))
    columns = ("quantity", "original", "shipped", "change")
    if record.chosen is None:
        columns, measured = columns[:2], tuple(row[:2] for row in measured)
    return Table("Before and after", columns, measured, frozenset(range(1, len(columns))), kind="comparison")


_PARTS: tuple[tuple[str, Callable[[Row], object]], ...] = (
    ("certification split", lambda row: row.certified),
    ("search split", lambda row: row.quality),
)


def _qualities(base: Row, shipped: Row, part) -> tuple[str, str, str]:
    before, after = part(base), part(shipped)
    change = words.MISSING
    if before and after and before.value is not None and after.value is not None:
        change = words.change(after.value - before.value)
    return words.interval(before), words.interval(after), change


def _time(name: str) -> Callable[[Row], float | None]:
    return lambda row: None if row.latency is None else _LATENCY[name](row.latency)


_LATENCY: dict[str, Callable[[Latency], float | None]] = {
    "median": lambda latency: latency.median_s,
    "p90": lambda latency: latency.p90_s,
    "p99": lambda latency: latency.p99_s,
    "throughput": lambda latency: latency.throughput_per_s,
}

#: Label, value, how it is written, and whether less is better.
_QUANTITIES: tuple[tuple[str, Callable[[Row], float | None], Callable[[float | None], str], bool], ...] = (
    ("latency, median", _time("median"), words.seconds, True),
    ("latency, p90", _time("p90"), words.seconds, True),
    ("latency, p99", _time("p99"), words.seconds, True),
    ("throughput", _time("throughput"), words.rate, False),
    ("size on disk", lambda row: row.size_bytes, words.size, True),
    ("peak memory", lambda row: row.peak_bytes, words.size, True),
    ("parameters", lambda row: row.parameters, words.count, True),
    ("multiply-adds a sample", lambda row: row.macs, words.count, True),
)


def _gain(before: float | None, after: float | None, less_is_better: bool) -> str:
    if not before or not after:
        return words.MISSING
    return words.factor(before / after if less_is_better else after / before)


#: Longest recipe that a table shows in full, in steps.
_STEPS = 4


def trials(record: Record) -> Table:
    """Return everything that was tried, the base first; the numbers are those of the picture."""
    rows = tuple(
        (
            str(number),
            f"{row.name}\n{recipe(row)}",
            _limit(record, row),
            words.interval(row.quality),
            words.interval(row.certified),
            *_cost(row),
        )
        for number, row in enumerate((record.base, *record.candidates))
    )
    columns = (
        "#",
        "candidate",
        "limit",
        f"{record.aim.metric}, search",
        f"{record.aim.metric}, certification",
        "speed-up",
        "median",
        "size",
    )
    return _told(Table("Every candidate", columns, rows, frozenset(range(3, 8)), _marked(record), "counted"))


def summary(record: Record) -> Table:
    """Return what was tried in few columns, for a terminal."""
    rows = tuple(
        (str(number), row.name, _limit(record, row), words.quality(_best_known(row)), *_cost(row))
        for number, row in enumerate((record.base, *record.candidates))
    )
    columns = ("#", "candidate", "limit", record.aim.metric, "speed-up", "median", "size")
    return _told(Table("Every candidate", columns, rows, frozenset(range(3, 7)), _marked(record), "counted"))


def _cost(row: Row) -> tuple[str, str, str]:
    return words.interval(row.speedup, words.factor), _median(row), words.size(row.size_bytes)


def _best_known(row: Row) -> float | None:
    known = row.certified or row.quality
    return known.value if known else None


def _limit(record: Record, row: Row) -> str:
    return "original" if row is record.base else row.standing.value


def _marked(record: Record) -> int:
    return 0 if record.chosen is None else record.chosen + 1


def recipe(row: Row) -> str:
    """Return the last steps of a long recipe; that of what is shipped stands in full in the report and the card."""
    if not row.recipe:
        return "unchanged" if row.size_bytes is not None or not row.dropped_because else "not built"
    if len(row.recipe) <= _STEPS:
        return "; ".join(row.recipe)
    return f"after {len(row.recipe) - _STEPS + 1} steps: " + "; ".join(row.recipe[1 - _STEPS :])


def _median(row: Row) -> str:
    return words.seconds(row.latency.median_s if row.latency else None)


def baselines(record: Record) -> Table:
    """Return what the original model does in every runtime that costs nothing."""
    rows = tuple(
        (
            row.name,
            row.runtime or words.MISSING,
            _median(row),
            words.interval(row.speedup, words.factor),
            words.size(row.size_bytes),
            words.interval(row.quality),
        )
        for row in record.baselines
    )
    columns = ("baseline", "runtime", "median", "against the base", "size", record.aim.metric)
    names = [row.name for row in record.baselines]
    marked = names.index(record.base.name) if record.base.name in names else None
    return _told(Table("Free baselines", columns, rows, frozenset(range(2, 6)), marked))


def layers(record: Record) -> Table:
    """Return what was done to which layer, and why."""
    rows = tuple(
        (
            layer.name,
            layer.kind,
            layer.change or "left as it is",
            layer.before or words.MISSING,
            layer.after or words.MISSING,
            layer.reason,
        )
        for layer in record.layers
    )
    columns = ("layer", "kind", "change", "before", "after", "why")
    return _told(Table("What was done to which layer", columns, rows))


def _told(table: Table) -> Table:
    """Return the table without the columns that say nothing."""
    places = [
        place
        for place in range(len(table.columns))
        if any(row[place] not in ("", words.MISSING) for row in table.rows)
    ]
    rows = tuple(tuple(row[place] for place in places) for row in table.rows)
    numeric = frozenset(new for new, old in enumerate(places) if old in table.numeric)
    return replace(table, columns=tuple(table.columns[place] for place in places), rows=rows, numeric=numeric)


def dropped(record: Record) -> Table:
    """Return the candidates that search left, with the reasons to try and to leave."""
    rows = tuple(
        (f"{row.name}\n{recipe(row)}", row.tried_because or words.MISSING, row.dropped_because)
        for row in record.candidates
        if row.dropped_because
    )
    return Table("Left, and why", ("candidate", "tried because", "left because"), rows)


def latencies(record: Record) -> Table:
    """Return times of one call of the base and of what is shipped."""
    rows = tuple(
        (
            row.name,
            *(write(read(row)) for label, read, write, _ in _QUANTITIES[:4]),
            str(row.latency.calls or len(row.latency.samples_s) or words.MISSING),
        )
        for row in _two(record)
        if row.latency
    )
    columns = ("model", "median", "p90", "p99", "throughput", "calls")
    return Table("Time of one call", columns, rows, frozenset(range(1, 6)))


def _two(record: Record) -> tuple[Row, ...]:
    return (record.base,) if record.chosen is None else (record.base, record.shipped)


def curves(record: Record) -> Table:
    """Return where every training curve began, was best and ended."""
    rows = []
    for curve in record.curves:
        known = [value for value in curve.values if value is not None]
        if known:
            ends = (known[0], min(known), max(known), known[-1])
            rows.append(
                (curve.name, curve.quantity, f"{len(curve.values)} {curve.unit}s", *map(words.quality, ends))
            )
    columns = ("training", "quantity", "length", "first", "lowest", "highest", "last")
    return Table("Training", columns, tuple(rows), frozenset(range(3, 7)))


def slices(record: Record) -> Table:
    """Return quality by class or part of the data, the largest loss first."""
    sign = 1 if record.aim.higher_is_better else -1

    def gain(part: Slice) -> float:
        return (part.after or 0.0) - (part.before or 0.0)

    rows = tuple(
        (
            part.name,
            str(part.samples),
            words.quality(part.before),
            words.quality(part.after),
            words.change(gain(part)),
        )
        for part in sorted(record.slices, key=lambda part: sign * gain(part))
    )
    columns = ("part", "samples", "original", "shipped", "change")
    return Table(f"{record.aim.metric} by part of the data", columns, rows, frozenset(range(1, 5)))


def operators(record: Record) -> Table:
    """Return how many operators of each kind the files hold."""
    rows = tuple((entry.name, str(entry.before), str(entry.after)) for entry in record.operators)
    return Table("Operators of the files", ("operator", "original", "shipped"), rows, frozenset({1, 2}))


def changed(record: Record) -> Table:
    """Return the samples whose answer changed."""
    rows = tuple((a.sample, a.target or words.MISSING, a.before, a.after) for a in record.changed)
    return Table("Answers that changed", ("sample", "target", "original", "shipped"), rows)


def roofline(record: Record) -> Table:
    """Return the numbers of the roofline picture."""
    points = record.roofline.points if record.roofline else ()
    rows = tuple(
        (
            point.name,
            words.MISSING if point.macs_per_byte is None else f"{point.macs_per_byte:.3g}",
            words.rate(point.macs_per_s),
            words.seconds(point.limit_s),
            words.share(point.share),
            point.bound,
        )
        for point in points
    )
    columns = (
        "model", "multiply-adds a byte", "multiply-adds a second", "shortest time", "share of the limit", "limited by",
    )  # fmt: skip
    return _told(Table("Roofline", columns, rows, frozenset(range(1, 5))))


def splits(record: Record) -> Table:
    """Return the parts of the data and how they were made."""
    rows = tuple((split.name, str(split.samples), split.origin) for split in record.aim.splits)
    return Table("Data", ("part", "samples", "how it was made"), rows, frozenset({1}))


def phases(record: Record) -> Table:
    """Return the use of the budget."""
    total = sum(phase.seconds or 0.0 for phase in record.phases)
    rows = tuple(
        (
            phase.name,
            words.seconds(phase.seconds),
            f"{100 * (phase.seconds or 0.0) / total:.0f}%" if total else "–",
        )
        for phase in record.phases
    )
    return Table("Use of the budget", ("phase", "time", "share"), rows, frozenset({1, 2}))


def pairs(caption: str, mapping: Mapping[str, object]) -> Table:
    """Return a mapping as a table of two columns.

    Example:
        >>> pairs("Seeds", {"search": 7}).rows
        (('search', '7'),)
    """
    rows = tuple((str(key), str(value)) for key, value in mapping.items())
    return Table(caption, ("what", "value"), rows, kind="pairs")
