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
WIDE, NARROW = 992, 340
#: Room for the labels of a vertical axis.
_AXIS = 58
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
    wide, narrow = (draw(build(width - _AXIS), f"{name}-{width}") for width in (WIDE, NARROW))
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
    signed = "abs(datum.value) < 1e-12 ? '0' : format(datum.value, '+.3~f')"
    axis = alt.Axis(
        title="loss of quality, paired with the original", labelExpr=signed, tickCount=width // 110
    )
    x = alt.X("value:Q", scale=scale, axis=axis)
    spans = {"low": low, "high": high, "value": drop.value, "zero": 0, "allowed": allowed, "right": right}
    base = alt.Chart(_data([spans]))
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
            "text": str(number) if number else "original",
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
    legend = alt.Legend(
        title=None, orient="top", symbolSize=90, symbolOpacity=1, columns=4 if width > 500 else 2
    )
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
        points if len(points) <= _LABELLED else [p for p in points if p["shipped"] or p["text"] == "original"]
    )
    ends = [point["x"] for point in points]
    turn = 0.2 * min(ends) + 0.8 * max(ends)  # names beyond it stand on the left of their point
    for side, align, dx in ((False, "left", 10), (True, "right", -10)):
        these = alt.Chart(_data([p for p in named if (p["x"] > turn) is side]))
        marks += _words(these.encode(x=x, y=y), align=align, dx=dx, dy=-8)
    return alt.layer(*marks).properties(width=width, height=340 if width > 500 else 280)


def _floor(floor: float, width: int) -> list[alt.Chart]:
    line = alt.Chart(_data([{"y": floor, "text": f"floor {words.quality(floor)}"}]))
    rule = line.mark_rule(color="var(--bad)", strokeDash=[5, 3], strokeWidth=1.5).encode(y="y:Q")
    return [
        rule,
        *_words(line.encode(x=alt.value(width - 2), y="y:Q"), align="right", dy=9, color="var(--bad)"),
    ]


def _words(chart: alt.Chart, **place) -> list[alt.Chart]:
    """Text with a halo of the page's colour, so that it can be read where it crosses other marks."""
    chart = chart.encode(text="text:N")
    style = {"fontSize": 12, "color": "var(--ink)"} | place
    halo = style | {
        "color": "var(--paper)",
        "stroke": "var(--paper)",
        "strokeWidth": 4,
        "strokeJoin": "round",
    }
    return [chart.mark_text(**halo), chart.mark_text(**style)]


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
        name = alt.Chart(_data([{"text": row.name}])).encode(x=alt.value(0), y=alt.value(-9))
        heading = name.mark_text(align="left", fontSize=13, fontWeight=600, color="var(--ink)").encode(
            text="text:N"
        )
        strips.append(alt.layer(area, *_quantile_marks(row, x), heading).properties(width=width, height=96))
    return alt.vconcat(*strips, spacing=26)


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
        pictures.append((quantity, _picture(f"curve{number}", label, partial(_curve, members))))
    return tuple(pictures)


def _curve(members: list[Curve], width: int) -> alt.TopLevelMixin:
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
    dots = {"size": 36, "filled": True} if len(points) <= 25 * len(names) else False
    return (
        alt.Chart(_data(points))
        .mark_line(strokeWidth=2, point=dots)
        .encode(
            x=alt.X("step:Q", title=members[0].unit, axis=alt.Axis(tickCount=width // 90, tickMinStep=1)),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
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
    xs, ys = [point["x"] for point in points], [point["y"] for point in points]
    left, right = min(knee, *xs) / 3, max(knee, *xs) * 3
    roof = [{"x": left, "y": bandwidth * left}, {"x": knee, "y": peak}, {"x": right, "y": peak}]
    low, high = min(*ys, bandwidth * left) / 1.5, peak * 1.6
    x = _log("x", "multiply-adds per byte moved", left, right)
    y = _log("y", "billion multiply-adds a second", low, high, alt.Y)
    line = alt.Chart(_data(roof)).mark_line(color="var(--ink)", strokeWidth=2).encode(x=x, y=y)
    spots = alt.Chart(_data([point | {"text": point["name"]} for point in points])).encode(x=x, y=y)
    dots = spots.mark_point(filled=True, size=110, color="var(--c1)", opacity=1)
    return alt.layer(line, dots, *_words(spots, align="left", dx=9, dy=-7)).properties(
        width=width, height=260
    )


def _log(name: str, title: str, low: float, high: float, channel=alt.X) -> alt.X | alt.Y:
    ticks = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return channel(f"{name}:Q", title=title, scale=scale, axis=alt.Axis(format="~g", values=ticks))
