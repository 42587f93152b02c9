"""Sensitivity of layers: a shaded table, and a picture of the whole where the table is long."""

from dataclasses import dataclass
from functools import partial

import altair as alt

from tersor.reporting import words
from tersor.reporting.record import Record
from tersor.reporting.svg import Picture, inline, picture

#: From this many layers on, a picture shows the whole at a glance.
_LONG = 25


@dataclass(frozen=True, slots=True)
class Heat:
    """A heat map as a table: for each layer a word and a level in [0, 1] a method."""

    caption: str
    methods: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]


def heat(record: Record) -> Heat | None:
    """Return the sensitivity of each layer by method, shaded against the largest."""
    methods = tuple(dict.fromkeys(name for layer in record.layers for name in layer.sensitivity))
    rows = [
        (layer.name, [layer.sensitivity.get(m) for m in methods])
        for layer in record.layers
        if layer.sensitivity
    ]
    top = max((value for _, row in rows for value in row if value is not None), default=0.0)
    if not methods:
        return None
    cells = tuple(
        (name, tuple((words.share(value), _level(value, top)) for value in row)) for name, row in rows
    )
    return Heat(
        "Change of the outputs when one layer alone is changed, share of their energy", methods, cells
    )


def _level(value: float | None, top: float) -> float:
    """Shade by the square root: energies span decades, and the amplitude is what a reader compares."""
    return max(0.0, value / top) ** 0.5 if value is not None and top > 0 else 0.0


def overview(heat: Heat | None) -> Picture | None:
    """Draw all layers side by side; None where the table alone can be taken in."""
    if heat is None or len(heat.rows) < _LONG:
        return None
    return picture("heat", f"{heat.caption}, the first layer on the left.", partial(_overview, heat))


def _overview(heat: Heat, width: int) -> alt.TopLevelMixin:
    cells = [
        {"layer": number, "next": number + 1, "method": method, "level": level}
        for number, (_, row) in enumerate(heat.rows)
        for method, (_, level) in zip(heat.methods, row, strict=True)
    ]
    axis = alt.Axis(title="layer, in the order of the network", tickMinStep=1, tickCount=width // 90)
    return (
        alt.Chart(inline(cells))
        .mark_rect(color="var(--heat)")
        .encode(
            x=alt.X("layer:Q", axis=axis, scale=alt.Scale(domain=[0, len(heat.rows)], nice=False)),
            x2="next:Q",
            y=alt.Y(
                "method:N", title=None, sort=list(heat.methods), axis=alt.Axis(labelLimit=110, grid=False)
            ),
            opacity=alt.Opacity("level:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.02, 1])),
        )
        .properties(width=width - 40, height=26 * len(heat.methods))
    )
