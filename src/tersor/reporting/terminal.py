"""The verdict for a terminal: a table with rich, or plain lines where there is none."""

from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from tersor.reporting import tables, words
from tersor.reporting.clean import clean
from tersor.reporting.record import Record, Row, Standing

_COLOURS = {Standing.HOLDS: "green", Standing.MISSES: "red", Standing.UNTESTED: "dim"}


def render_terminal(record: Record, *, terminal: bool = False, width: int = 100) -> str:
    """Return candidates and verdict as text.

    Args:
        record: what to show.
        terminal: whether the text goes to a terminal: a table with colours; else plain lines without control codes.
        width: columns of the terminal.

    Example:
        >>> from tersor.reporting.record import Aim, Row, Standing, Verdict
        >>> aim = Aim(kind="classification", model="lenet", metric="accuracy", higher_is_better=True, limit="none")
        >>> verdict = Verdict(outcome="nothing_faster", standing=Standing.UNTESTED, sentence="Nothing was faster.")
        >>> print(render_terminal(Record(title="lenet", created="2026-01-31T12:00:00+00:00", tersor_version="0.1.0",
        ...                              aim=aim, verdict=verdict, base=Row(name="original"))))
        limit: none
        original <- shipped
        Nothing was faster.
    """
    record = clean(record)
    return _rich(record, width) if terminal else _plain(record)


def _plain(record: Record) -> str:
    lines = [f"limit: {_flat(record.aim.limit)}"]
    lines += [_plain_row(record, row) for row in (record.base, *record.candidates)]
    lines += [f"warning: {_flat(warning)}" for warning in record.warnings]
    lines += [_flat(text) for text in (record.verdict.sentence, record.verdict.advice) if text]
    return "\n".join(lines)


def _plain_row(record: Record, row: Row) -> str:
    cells = [
        _flat(row.name),
        "" if row.standing is Standing.UNTESTED else row.standing.value,
        *(
            f"{label} {value}"
            for label, value in (
                (record.aim.metric, words.interval(row.certified or row.quality)),
                ("median", words.seconds(row.latency.median_s if row.latency else None)),
                ("speed-up", words.interval(row.speedup, words.factor)),
                ("size", words.size(row.size_bytes)),
            )
            if value != words.MISSING
        ),
    ]
    if row.quality is None and row.certified is None:
        cells.append(_flat(row.dropped_because))
    line = "  ".join(cell for cell in cells if cell)
    return f"{line} <- shipped" if row is record.shipped else line


def _flat(text: str) -> str:
    return " ".join(text.split())


def _rich(record: Record, width: int) -> str:
    trials = tables.summary(record)
    table = RichTable(
        box=box.SIMPLE_HEAD, title=Text(f"limit: {_flat(record.aim.limit)}"), title_justify="left"
    )
    for index, name in enumerate(trials.columns):
        table.add_column(Text(name), justify="right" if index in trials.numeric else "left", overflow="fold")
    for number, (cells, row) in enumerate(zip(trials.rows, (record.base, *record.candidates), strict=True)):
        style = "bold" if number == trials.marked else ""
        line = [
            Text(_flat(cell), style=_COLOURS[row.standing] if index == 2 else "")
            for index, cell in enumerate(cells)
        ]
        table.add_row(*line, style=style)
    out = Console(file=StringIO(), force_terminal=True, width=width, highlight=False, emoji=False)
    out.print(table)
    for warning in record.warnings:
        out.print(Text(f"warning: {_flat(warning)}", style="yellow"))
    out.print(Text(_flat(record.verdict.sentence), style=f"bold {_COLOURS[record.verdict.standing]}"))
    if record.verdict.advice:
        out.print(Text(_flat(record.verdict.advice)))
    return out.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]  # the StringIO given above
