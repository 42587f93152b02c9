"""The pictures of a report: static SVG without scripts, coloured by the page's CSS variables.

Altair describes a picture, vl-convert draws it while the report is written. Each is drawn twice, for wide and for
narrow pages, because text in a scaled picture would become too small to read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import altair as alt
from markupsafe import Markup

from tersor.reporting import words
from tersor.reporting.record import Curve, Estimate, Record, Row, Standing
from tersor.reporting.svg import draw

#: Widths in CSS pixels of the two drawings.
WIDE, NARROW = 880, 340
_COLOURS = tuple(f"var(--c{number})" for number in range(1, 7))
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [10, 4], [1, 3])
_SHAPES = {"original": "square", "holds": "circle", "misses": "cross", "not tested": "diamond"}
_SHAPE_COLOURS = {
    "original": "var(--ink)", "holds": "var(--good)", "misses": "var(--bad)", "not tested": "var(--muted)"
}  # fmt: skip
#: More points than this are drawn without their numbers.
_LABELLED = 30


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing in two widths.

    Attributes:
        label: what a listener hears instead.
        wide: SVG for pages above 700 px.
        narrow: SVG for those below.
    """

    label: str
    wide: Markup
    narrow: Markup


def _picture(name: str, label: str, build: Callable[[int], alt.TopLevelMixin]) -> Picture:
    wide, narrow = (draw(build(width), f"{name}-{width}") for width in (WIDE, NARROW))
    return Picture(label, wide, narrow)


def _data(rows: Sequence[Mapping[str, object]]) -> alt.InlineData:
    return alt.InlineData(values=[dict(row) for row in rows])


def margin(record: Record) -> Picture | None:
    """Draw the loss of quality with its interval against the loss that was allowed."""
    drop, allowed = record.shipped.drop, record.aim.allowed_drop
    if drop is None or drop.value is None or allowed is None:
        return None
    label = (
        f"{record.aim.metric}: loss {words.interval(drop)} on the certification split; at most "
        f"{words.quality(allowed)} was allowed."
    )
    return _picture("margin", label, partial(_margin, drop, allowed))


def _margin(drop: Estimate, allowed: float, width: int) -> alt.TopLevelMixin:
    low, high = (drop.value if end is None else end for end in (drop.low, drop.high))
    reach = max(abs(value or 0.0) for value in (drop.value, low, high, allowed))
    left, right = min(-0.35 * reach, 1.15 * (low or 0.0)), 1.25 * reach
    scale = alt.Scale(domain=[left, right], nice=False)
    axis = alt.Axis(
        title="loss of quality against the original, paired", format="+.3~f", tickCount=width // 110
    )
    x = alt.X("value:Q", scale=scale, axis=axis)
    base = alt.Chart(
        _data(
            [{"low": low, "high": high, "value": drop.value, "zero": 0, "allowed": allowed, "right": right}]
        )
    )
    marks = [
        base.mark_rect(color="var(--bad)", opacity=0.12).encode(
            x=alt.X("allowed:Q", scale=scale, axis=axis), x2="right:Q"
        ),
        base.mark_rule(color="var(--bad)", strokeWidth=2, strokeDash=[5, 3]).encode(x="allowed:Q"),
        base.mark_rule(color="var(--ink)", strokeWidth=1).encode(x="zero:Q"),
        base.mark_bar(color="var(--c1)", height=10, opacity=0.35, cornerRadius=5).encode(
            x="low:Q", x2="high:Q"
        ),
        base.mark_point(color="var(--c1)", filled=True, size=130, opacity=1).encode(x=x),
    ]
    for value, text, align in ((0, "original", "right"), (allowed, "limit", "left")):
        spot = alt.Chart(_data([{"value": value, "text": text}]))
        place = {"align": align, "dx": -5 if align == "right" else 5, "y": 9, "fontSize": 12}
        marks.append(spot.mark_text(**place, color="var(--muted)").encode(x=x, text="text:N"))
    return alt.layer(*marks).properties(width=width, height=62)


@dataclass(frozen=True, slots=True)
class _Axis:
    """What a goal is measured in."""

    title: str
    read: Callable[[Row], float | None]


def _median_ms(row: Row) -> float | None:
    median = row.latency.median_s if row.latency else None
    return None if median is None else 1e3 * median


_GOALS = {
    "latency": _Axis("median time of one call, ms", _median_ms),
    "throughput": _Axis(
        "samples per second", lambda row: row.latency.throughput_per_s if row.latency else None
    ),
    "size": _Axis("size on disk, MB", lambda row: None if row.size_bytes is None else row.size_bytes / 1e6),
    "memory": _Axis("peak memory, MB", lambda row: None if row.peak_bytes is None else row.peak_bytes / 1e6),
}


def pareto(record: Record) -> Picture | None:
    """Draw quality on the search split against what the goal asked to reduce, one point a candidate."""
    axis = _GOALS.get(record.aim.goal, _GOALS["latency"])
    points = [
        {
            "number": str(number) if number else "original",
            "x": axis.read(row),
            "y": row.quality.value,
            "low": row.quality.low,
            "high": row.quality.high,
            "limit": row.standing.value if number else "original",
            "shipped": row is record.shipped,
            "name": row.name,
        }
        for number, row in enumerate((record.base, *record.candidates))
        if row.quality and row.quality.value is not None and axis.read(row) is not None
    ]
    if len(points) < 2:
        return None
    holding = sum(point["limit"] == Standing.HOLDS.value for point in points)
    label = (
        f"{record.aim.metric} against {axis.title} for {len(points)} models; {holding} of the candidates hold the "
        f"limit. Shipped: {record.shipped.name}."
    )
    return _picture("pareto", label, partial(_pareto, record, axis.title, points))


def _pareto(record: Record, title: str, points: list[dict], width: int) -> alt.TopLevelMixin:
    x = alt.X("x:Q", title=title, scale=alt.Scale(zero=False, nice=True, padding=24))
    y = alt.Y(
        "y:Q", title=f"{record.aim.metric}, search split", scale=alt.Scale(zero=False, nice=True, padding=12)
    )
    kinds = [kind for kind in _SHAPES if any(point["limit"] == kind for point in points)]
    legend = alt.Legend(title=None, orient="top", symbolSize=90, columns=4 if width > 500 else 2)
    shape = alt.Shape(
        "limit:N", scale=alt.Scale(domain=kinds, range=[_SHAPES[k] for k in kinds]), legend=legend
    )
    colour = alt.Color(
        "limit:N", scale=alt.Scale(domain=kinds, range=[_SHAPE_COLOURS[k] for k in kinds]), legend=legend
    )
    base = alt.Chart(_data(points))
    spans = alt.Chart(_data([p for p in points if p["low"] is not None and p["high"] is not None]))
    marks = [
        spans.mark_rule(strokeWidth=1.2, opacity=0.5).encode(
            x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour
        ),
        base.mark_point(filled=True, size=90, opacity=1).encode(x=x, y=y, shape=shape, color=colour),
        alt.Chart(_data([p for p in points if p["shipped"]]))
        .mark_point(filled=False, shape="circle", size=360, strokeWidth=2, color="var(--ink)", opacity=1)
        .encode(x=x, y=y),
    ]
    if record.aim.floor is not None:
        marks += _floor(record.aim.floor, width)
    named = (
        points
        if len(points) <= _LABELLED
        else [p for p in points if p["shipped"] or p["number"] == "original"]
    )
    text = alt.Chart(_data(named)).mark_text(align="left", dx=10, dy=-8, fontSize=12, color="var(--ink)")
    marks.append(text.encode(x=x, y=y, text="number:N"))
    return alt.layer(*marks).properties(width=width, height=340 if width > 500 else 280)


def _floor(floor: float, width: int) -> list[alt.Chart]:
    line = alt.Chart(_data([{"y": floor, "text": f"floor {words.quality(floor)}"}]))
    rule = line.mark_rule(color="var(--bad)", strokeDash=[5, 3], strokeWidth=1.5).encode(y="y:Q")
    text = line.mark_text(align="right", dy=-7, fontSize=12, color="var(--bad)").encode(
        x=alt.value(width - 4), y="y:Q", text="text:N"
    )
    return [rule, text]


def latency(record: Record) -> Picture | None:
    """Draw how the times of single calls are spread, for the base and for what is shipped."""
    rows = [record.base] if record.chosen is None else [record.base, record.shipped]
    rows = [
        row for row in rows if row.latency and len([t for t in row.latency.samples_s if t is not None]) > 1
    ]
    if not rows:
        return None
    label = "Spread of the times of single calls. " + " ".join(
        f"{row.name}: median {words.seconds(row.latency.median_s)}, 99 per cent under {words.seconds(row.latency.p99_s)}."
        for row in rows
        if row.latency
    )
    return _picture("latency", label, partial(_latency, rows))


def _latency(rows: list[Row], width: int) -> alt.TopLevelMixin:
    times = {row.name: _milliseconds(row) for row in rows}
    tails = [_quantiles(row)[-1][1] or max(times[row.name]) for row in rows]
    longest, shortest = 1.2 * max(tails), 0.85 * min(min(values) for values in times.values())
    scale = alt.Scale(domain=[shortest, longest], nice=False, clamp=True)
    strips = []
    for place, row in enumerate(rows):
        last = place == len(rows) - 1
        axis = (
            alt.Axis(title="time of one call, ms")
            if last
            else alt.Axis(labels=False, ticks=False, title=None)
        )
        x = alt.X("value:Q", scale=scale, axis=axis)
        data = _data([{"value": value} for value in times[row.name] if value <= longest])
        area = (
            alt.Chart(data)
            .transform_density("value", as_=["value", "density"], extent=[shortest, longest], steps=300)
            .mark_area(
                color=_COLOURS[place], opacity=0.35, line={"color": _COLOURS[place], "strokeWidth": 1.5}
            )
            .encode(x=x, y=alt.Y("density:Q", axis=None))
        )
        title = alt.TitleParams(
            row.name, anchor="start", fontSize=13, fontWeight=600, color="var(--ink)", offset=4
        )
        layers = alt.layer(area, *_quantile_marks(row, x)).properties(width=width, height=96, title=title)
        strips.append(layers)
    return alt.vconcat(*strips, spacing=10)


def _milliseconds(row: Row) -> list[float]:
    times = [1e3 * value for value in row.latency.samples_s if value is not None] if row.latency else []
    step = max(1, len(times) // 2000)
    return times[::step]


def _quantiles(row: Row) -> list[tuple[str, float | None]]:
    latency = row.latency
    values = (latency.median_s, latency.p90_s, latency.p99_s) if latency else ()
    return [
        (name, None if value is None else 1e3 * value)
        for name, value in zip(("median", "p90", "p99"), values, strict=False)
    ]


def _quantile_marks(row: Row, x: alt.X) -> list[alt.Chart]:
    spots = [
        {"value": value, "text": name, "level": level}
        for (name, value), level in zip(_quantiles(row), (8, 22, 36), strict=False)
        if value is not None
    ]
    base = alt.Chart(_data(spots))
    level = alt.Y("level:Q", scale=None)
    return [
        base.mark_rule(color="var(--ink)", strokeWidth=1, strokeDash=[2, 2]).encode(x=x),
        base.mark_text(align="left", dx=4, fontSize=11, color="var(--ink)").encode(
            x=x, y=level, text="text:N"
        ),
    ]


def curves(record: Record) -> tuple[tuple[str, Picture], ...]:
    """Draw the training curves, one picture for each quantity."""
    ordered = sorted(record.curves, key=lambda curve: curve.quantity)
    pictures = []
    for number, (quantity, group) in enumerate(groupby(ordered, key=lambda curve: curve.quantity)):
        members = list(group)
        label = f"{quantity} over training for {', '.join(curve.name for curve in members)}."
        pictures.append((quantity, _picture(f"curve{number}", label, partial(_curve, quantity, members))))
    return tuple(pictures)


def _curve(quantity: str, members: list[Curve], width: int) -> alt.TopLevelMixin:
    points = [
        {"step": step, "value": value, "name": curve.name}
        for curve in members
        for step, value in _thinned(curve)
        if step is not None and value is not None
    ]
    names = [curve.name for curve in members]
    legend = alt.Legend(
        title=None, orient="top", columns=3 if width > 500 else 1, symbolType="stroke", symbolSize=300
    )
    cycle = [place % len(_COLOURS) for place in range(len(names))]
    colour = alt.Color(
        "name:N", legend=legend, scale=alt.Scale(domain=names, range=[_COLOURS[c] for c in cycle])
    )
    dash = alt.StrokeDash(
        "name:N", legend=legend, scale=alt.Scale(domain=names, range=[_DASHES[c] for c in cycle])
    )
    return (
        alt.Chart(_data(points))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("step:Q", title=members[0].unit, axis=alt.Axis(tickCount=width // 90)),
            y=alt.Y("value:Q", title=quantity, scale=alt.Scale(zero=False)),
            color=colour,
            strokeDash=dash,
        )
        .properties(width=width, height=220)
    )


def _thinned(curve: Curve) -> list[tuple[float | None, float | None]]:
    points = list(zip(curve.steps, curve.values, strict=False))
    return points[:: max(1, len(points) // 500)]


def roofline(record: Record) -> Picture | None:
    """Draw what the machine can do at most and where the models stand."""
    roof = record.roofline
    points = [
        {"x": point.macs_per_byte, "y": point.macs_per_s / 1e9, "name": point.name}
        for point in (roof.points if roof else ())
        if point.macs_per_byte and point.macs_per_s
    ]
    if not roof or not points:
        return None
    label = "Roofline. " + " ".join(
        f"{point['name']} reaches {point['y']:.3g} billion multiply-adds a second." for point in points
    )
    return _picture(
        "roofline", label, partial(_roofline, roof.macs_per_s / 1e9, roof.bytes_per_s / 1e9, points)
    )


def _roofline(peak: float, bandwidth: float, points: list[dict], width: int) -> alt.TopLevelMixin:
    knee = peak / bandwidth
    left, right = (end(knee, *(point["x"] for point in points)) for end in (min, max))
    roof = [{"x": left / 3, "y": bandwidth * left / 3}, {"x": knee, "y": peak}, {"x": right * 3, "y": peak}]
    x = alt.X(
        "x:Q", title="multiply-adds per byte moved", scale=alt.Scale(type="log", nice=False), axis=_DECADES
    )
    y = alt.Y("y:Q", title="billion multiply-adds a second", scale=alt.Scale(type="log"), axis=_DECADES)
    line = alt.Chart(_data(roof)).mark_line(color="var(--ink)", strokeWidth=2).encode(x=x, y=y)
    spots = alt.Chart(_data(points))
    dots = spots.mark_point(filled=True, size=110, color="var(--c1)", opacity=1).encode(x=x, y=y)
    text = spots.mark_text(align="left", dx=9, dy=-6, fontSize=12, color="var(--ink)").encode(
        x=x, y=y, text="name:N"
    )
    return alt.layer(line, dots, text).properties(width=width, height=260)


_DECADES = alt.Axis(format="~g", tickCount=4)
