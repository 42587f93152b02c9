"""The pictures of a report: static SVG without scripts, coloured by the page's CSS variables.

A function takes the record and returns its picture, or None where the numbers for it were not measured.
"""

from functools import partial
from itertools import groupby
from typing import Any

import altair as alt

from tersor.reporting import words
from tersor.reporting.details import Roofline, RooflinePoint
from tersor.reporting.record import Curve, Estimate, Record
from tersor.reporting.svg import Picture, haloed, inline, picture

_COLOURS = tuple(f"var(--c{number})" for number in range(1, 7))
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [10, 4], [1, 3])


def margin(record: Record) -> Picture | None:
    """Draw the loss of quality with its interval against the loss that was allowed."""
    drop, allowed = record.shipped.drop, record.aim.allowed_drop
    if drop is None or drop.value is None or allowed is None:
        return None
    label = (
        f"{record.aim.metric}: loss {words.interval(drop)} on the certification split; at most "
        f"{words.quality(allowed)} was allowed."
    )
    return picture("margin", label, partial(_margin, drop, allowed))


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
    base = alt.Chart(inline([spans]))
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
        spot = alt.Chart(inline([{"value": value, "text": text}]))
        place = {"align": align, "dx": -5 if align == "right" else 5, "y": 9, "fontSize": 12}
        marks.append(spot.mark_text(**place, color="var(--muted)").encode(x=x, text="text:N"))
    return alt.layer(*marks).properties(width=width, height=62)


def curves(record: Record) -> tuple[tuple[str, Picture], ...]:
    """Draw the training curves, one picture for each quantity."""
    ordered = sorted(record.curves, key=lambda curve: curve.quantity)
    pictures = []
    for number, (quantity, group) in enumerate(groupby(ordered, key=lambda curve: curve.quantity)):
        members = list(group)
        label = f"{quantity} over training for {', '.join(curve.name for curve in members)}."
        pictures.append((quantity, picture(f"curve{number}", label, partial(_curve, members))))
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
        alt.Chart(inline(points))
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
    """Draw what the machine can do at most, where the models stand, and how far each is from its own limit."""
    roof = record.roofline
    points = [
        _stand(point) for point in (roof.points if roof else ()) if point.macs_per_byte and point.macs_per_s
    ]
    if not roof or not points:
        return None
    label = "Roofline. " + " ".join(
        f"{point['name']} reaches {point['y']:.3g} billion multiply-adds a second{point['told']}."
        for point in points
    )
    return picture("roofline", label, partial(_roofline, roof, points))


def _stand(point: RooflinePoint) -> dict[str, Any]:
    """Return where a model stands, in billions a second, and its own limit where that is known."""
    assert point.macs_per_s is not None
    reached = point.macs_per_s / 1e9
    share = point.share or 0.0
    told = f", {words.share(share)} of its limit" if share else ""
    top = reached / share if share else reached
    text = point.name + (f", {100 * share:.0f}%" if share else "")
    return {
        "x": point.macs_per_byte,
        "y": reached,
        "top": top,
        "name": point.name,
        "told": told,
        "text": text,
    }


def _roofline(roof: Roofline, points: list[dict[str, Any]], width: int) -> alt.TopLevelMixin:
    peak, bandwidth = roof.macs_per_s / 1e9, roof.bytes_per_s / 1e9
    knee = peak / bandwidth
    xs, ys = [point["x"] for point in points], [point["y"] for point in points]
    left, right = min(knee, *xs) / 3, max(knee, *xs) * 3
    high = 1.6 * max(peak, *(point["top"] for point in points))
    x = alt.X("x:Q", **_log("multiply-adds per byte moved", left, right))
    y = alt.Y("y:Q", **_log("billion multiply-adds a second", min(*ys, bandwidth * left) / 1.5, high))
    roofs = [{"x": left, "y": bandwidth * left}, {"x": knee, "y": peak}, {"x": right, "y": peak}]
    line = alt.Chart(inline(roofs)).mark_line(color="var(--ink)", strokeWidth=2).encode(x=x, y=y)
    spots = alt.Chart(inline(points)).encode(x=x, y=y)
    reach = spots.mark_rule(color="var(--c1)", strokeDash=[3, 3]).encode(y2="top:Q")
    limits = spots.mark_tick(color="var(--c1)", thickness=2, size=16, orient="horizontal").encode(
        y=alt.Y("top:Q", **_log("billion multiply-adds a second", min(*ys, bandwidth * left) / 1.5, high))
    )
    dots = spots.mark_point(filled=True, size=110, color="var(--c1)", opacity=1)
    names = haloed(spots, align="left", dx=9, dy=12)
    return alt.layer(line, reach, limits, dots, *names).properties(width=width, height=260)


def _log(title: str, low: float, high: float) -> dict[str, Any]:
    """Return what an axis of decades needs, with ticks at 1, 2 and 5."""
    ticks = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return {"title": title, "scale": scale, "axis": alt.Axis(format="~g", values=ticks)}
