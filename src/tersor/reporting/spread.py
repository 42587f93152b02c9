"""The picture of how the times of single calls are spread."""

import math
from functools import partial
from typing import Any

import altair as alt

from tersor.reporting import words
from tersor.reporting.record import Record, Row
from tersor.reporting.svg import Picture, haloed, inline, picture

#: More times than this are thinned before they are drawn.
_DRAWN = 1500
#: From this factor between the longest and the shortest time on, the axis is logarithmic.
_WIDE = 3.0


def latency(record: Record) -> Picture | None:
    """Draw the spread for the base and for what is shipped: densities, or quantiles where only these are known."""
    rows = [record.base] if record.chosen is None else [record.base, record.shipped]
    rows = [row for row in rows if row.latency and row.latency.median_s]
    if not rows:
        return None
    label = "Spread of the times of single calls. " + " ".join(
        f"{row.name}: median {words.seconds(row.latency.median_s)}, p99 {words.seconds(row.latency.p99_s)}."
        for row in rows
        if row.latency
    )
    return picture("latency", label, partial(_strips, rows))


def _strips(rows: list[Row], width: int) -> alt.TopLevelMixin:
    starts = [min(_milliseconds(row), default=0.8 * _quantiles(row)[0][1]) for row in rows]
    domain = [0.85 * min(starts), 1.2 * max(_quantiles(row)[-1][1] for row in rows)]
    wide = domain[1] > _WIDE * domain[0]
    scale = alt.Scale(type="log" if wide else "linear", domain=domain, nice=False, clamp=True)
    strips = []
    for place, row in enumerate(rows):
        last = place == len(rows) - 1
        axis = (
            alt.Axis(title="time of one call, ms" + wide * " (logarithmic)", **_ticks(domain, wide))
            if last
            else alt.Axis(labels=False, ticks=False, title=None)
        )
        x = alt.X("value:Q", scale=scale, axis=axis)
        times = [{"value": value} for value in _milliseconds(row) if value <= domain[1]]
        body = _density(times, domain, x, wide=wide) if len(times) > 1 else _bar(row, x)
        colour = f"var(--c{place + 1})"
        name = alt.Chart(inline([{"text": row.name}])).encode(x=alt.value(0), y=alt.value(-9), text="text:N")
        heading = name.mark_text(align="left", fontSize=13, fontWeight=600, color="var(--ink)", limit=width)
        layers = (_coloured(body, colour, area=len(times) > 1), *_marks(row, x), heading)
        strips.append(alt.layer(*layers).properties(width=width, height=96 if len(times) > 1 else 44))
    return alt.vconcat(*strips, spacing=26)


def _ticks(domain: list[float], wide: bool) -> dict[str, Any]:
    """Return ticks at 1, 2 and 5 of every decade for a logarithmic axis; a linear one finds its own."""
    every = [m * 10.0**e for e in range(-5, 7) for m in (1, 2, 5)]
    return {"values": [v for v in every if domain[0] <= v <= domain[1]], "format": "~g"} if wide else {}


def _density(times: list[dict[str, float]], domain: list[float], x: alt.X, *, wide: bool) -> alt.Chart:
    """Estimate the density on the scale that is drawn: of the logarithms where the axis is logarithmic."""
    there, back = ("log(datum.value)", "exp(datum.at)") if wide else ("datum.value", "datum.at")
    ends = [math.log(end) for end in domain] if wide else domain
    chart = alt.Chart(inline(times)).transform_calculate(place=there)
    chart = chart.transform_density("place", as_=["at", "density"], extent=ends, steps=400)
    return chart.transform_calculate(value=back).encode(x=x, y=alt.Y("density:Q", axis=None))


def _bar(row: Row, x: alt.X) -> alt.Chart:
    quantiles = _quantiles(row)
    ends = {"value": quantiles[0][1], "end": quantiles[-1][1]}
    return alt.Chart(inline([ends])).encode(x=x, x2="end:Q", y=alt.value(34))


def _coloured(chart: alt.Chart, colour: str, *, area: bool) -> alt.Chart:
    if area:
        return chart.mark_area(color=colour, opacity=0.35, line={"color": colour, "strokeWidth": 1.5})
    return chart.mark_bar(color=colour, opacity=0.45, height=10)


def _milliseconds(row: Row) -> list[float]:
    times = [1e3 * value for value in row.latency.samples_s if value is not None] if row.latency else []
    return times[:: max(1, len(times) // _DRAWN)]


def _quantiles(row: Row) -> list[tuple[str, float]]:
    latency = row.latency
    values = (latency.median_s, latency.p90_s, latency.p99_s) if latency else ()
    named = zip(("median", "p90", "p99"), values, strict=False)
    return [(name, 1e3 * value) for name, value in named if value is not None]


def _marks(row: Row, x: alt.X) -> list[alt.Chart]:
    """The quantiles as rules; their names are staggered, because they often lie close together."""
    spots = [
        {"value": value, "text": name, "level": level}
        for (name, value), level in zip(_quantiles(row), (6, 19, 32), strict=False)
    ]
    base = alt.Chart(inline(spots))
    rules = base.mark_rule(color="var(--ink)", strokeWidth=1, strokeDash=[2, 2]).encode(x=x)
    return [rules, *haloed(base.encode(x=x, y=alt.Y("level:Q", scale=None)), align="left", dx=4, fontSize=11)]
