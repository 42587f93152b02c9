"""The picture of quality against what the goal asked to reduce: one point a candidate, and the floor."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import altair as alt

from tersor.reporting import words
from tersor.reporting.labels import CORNERS, place
from tersor.reporting.record import Aim, Record, Row, Standing
from tersor.reporting.svg import Picture, haloed, inline, picture

_SHAPES = {"original": "square", "holds": "circle", "misses": "cross", "not tested": "diamond"}
_SHAPE_COLOURS = {
    "original": "var(--ink)", "holds": "var(--good)", "misses": "var(--bad)", "not tested": "var(--muted)"
}  # fmt: skip
#: More points than this are drawn without their numbers.
_LABELLED = 30


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
    return picture("pareto", label, partial(_pareto, record, axis.title, points))


@dataclass(frozen=True, slots=True)
class _Frame:
    """The plot: ranges of both axes, and its size in pixels. All layers must share the very same scales."""

    across: list[float]
    up: list[float]
    width: int
    height: int

    def x(self, field: str = "x:Q", **more) -> alt.X:
        return alt.X(field, scale=alt.Scale(domain=self.across, nice=False, zero=False), **more)

    def y(self, field: str = "y:Q", **more) -> alt.Y:
        return alt.Y(field, scale=alt.Scale(domain=self.up, nice=False, zero=False), **more)

    def pixels(self, x: float, y: float) -> tuple[float, float]:
        (left, right), (bottom, top) = self.across, self.up
        return self.width * (x - left) / (right - left), self.height * (top - y) / (top - bottom)


def _pareto(record: Record, title: str, points: list[dict], width: int) -> alt.TopLevelMixin:
    floor = record.aim.floor
    ends = [point[key] for point in points for key in ("low", "y", "high")]
    frame = _Frame(
        _domain(point["x"] for point in points),
        _domain(value for value in (*ends, floor) if value is not None),
        width,
        340 if width > 500 else 280,
    )
    titles = {"x": frame.x(title=title), "y": frame.y(title=f"{record.aim.metric}, search split")}
    marks = (*_points(points, titles, frame), *_limit(record.aim, frame), *_names(points, titles, frame))
    return alt.layer(*marks).properties(width=width, height=frame.height)


def _domain(values: Iterable[float]) -> list[float]:
    """The range of the values and a little more, so that no mark lies on the frame."""
    known = list(values)
    low, high = min(known), max(known)
    more = 0.07 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - more, high + more]


def _points(points: list[dict], titles: dict, frame: _Frame) -> list[alt.Chart]:
    kinds = [kind for kind in _SHAPES if any(point["limit"] == kind for point in points)]
    columns = 4 if frame.width > 500 else 2
    legend = alt.Legend(title=None, orient="top", symbolSize=90, symbolOpacity=1, columns=columns)
    shapes = alt.Scale(domain=kinds, range=[_SHAPES[kind] for kind in kinds])
    colours = alt.Scale(domain=kinds, range=[_SHAPE_COLOURS[kind] for kind in kinds])
    shape = alt.Shape("limit:N", scale=shapes, legend=legend)
    colour = alt.Color("limit:N", scale=colours, legend=legend)
    spans = alt.Chart(inline([p for p in points if p["low"] is not None and p["high"] is not None]))
    shipped = alt.Chart(inline([p for p in points if p["shipped"]]))
    ring = shipped.mark_point(
        filled=False, shape="circle", size=360, strokeWidth=2, color="var(--ink)", opacity=1
    )
    dots = alt.Chart(inline(points)).mark_point(filled=True, size=90, opacity=1)
    span = {"x": titles["x"], "y": frame.y("low:Q"), "y2": "high:Q", "color": colour}
    return [
        spans.mark_rule(strokeWidth=1.2, opacity=0.5).encode(**span),
        dots.encode(**titles, shape=shape, color=colour),
        ring.encode(**titles),
    ]


def _names(points: list[dict], titles: dict, frame: _Frame) -> list[alt.Chart]:
    named = (
        points if len(points) <= _LABELLED else [p for p in points if p["shipped"] or p["text"] == "original"]
    )
    chosen = place([(*frame.pixels(p["x"], p["y"]), p["text"]) for p in named], frame.width)
    marks = []
    for dx, dy in CORNERS:
        these = [p for p, corner in zip(named, chosen, strict=True) if corner == (dx, dy)]
        chart = alt.Chart(inline(these)).encode(**titles)
        marks += haloed(chart, align="left" if dx > 0 else "right", dx=dx, dy=dy) if these else []
    return marks


def _limit(aim: Aim, frame: _Frame) -> list[alt.Chart]:
    if aim.floor is None:
        return []
    named = f"{'floor' if aim.higher_is_better else 'limit'} {words.quality(aim.floor)}"
    line = alt.Chart(inline([{"y": aim.floor, "text": named}])).encode(y=frame.y())
    rule = line.mark_rule(color="var(--bad)", strokeDash=[5, 3], strokeWidth=1.5)
    text = line.encode(x=alt.value(frame.width - 2))
    return [rule, *haloed(text, align="right", dy=9, color="var(--bad)")]
