"""Draw Altair charts as SVG elements that are safe to put into a page.

Altair describes a picture, vl-convert draws it while the report is written. Each is drawn twice, for wide and for
narrow pages, because text in a scaled picture would become too small to read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import altair as alt
import vl_convert
from markupsafe import Markup

#: Widths in CSS pixels of the two drawings.
WIDE, NARROW = 992, 340
#: Room for the labels of a vertical axis.
_AXIS = 58
_SVG = "http://www.w3.org/2000/svg"
#: What a drawing may contain; scripts, links, styles and foreign objects are not among it.
_ELEMENTS = frozenset(
    {
        "svg",
        "g",
        "path",
        "rect",
        "line",
        "circle",
        "text",
        "tspan",
        "defs",
        "clipPath",
        "linearGradient",
        "stop",
    }
)
_REFERENCES = ("clip-path", "fill", "stroke")

_CONFIG = {
    "background": None,
    "padding": 2,
    "font": "system-ui",
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--rule-strong)",
        "tickColor": "var(--rule-strong)",
        "gridColor": "var(--rule)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelPadding": 4,
        "tickSize": 4,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False, "gridDash": [1, 3]},
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "labelLimit": 260,
        "offset": 6,
        "columnPadding": 18,
    },
}


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


def picture(name: str, label: str, build: Callable[[int], alt.TopLevelMixin]) -> Picture:
    """Draw twice what `build` describes for a width of its plot; `name` is unique in the page."""
    wide, narrow = (draw(build(width - _AXIS), f"{name}-{width}") for width in (WIDE, NARROW))
    return Picture(label, wide, narrow)


def inline(rows: Sequence[Mapping[str, object]]) -> alt.InlineData:
    """Return data that is part of the description."""
    return alt.InlineData(values=[dict(row) for row in rows])


def haloed(chart: alt.Chart, **place) -> list[alt.Chart]:
    """Return text with a halo of the page's colour, so that it can be read where it crosses other marks."""
    chart = chart.encode(text="text:N")
    style = {"fontSize": 12, "color": "var(--ink)"} | place
    halo = style | {
        "color": "var(--paper)",
        "stroke": "var(--paper)",
        "strokeWidth": 4,
        "strokeJoin": "round",
    }
    return [chart.mark_text(**halo), chart.mark_text(**style)]


def draw(chart: alt.TopLevelMixin, name: str) -> Markup:
    """Return `chart` as an SVG element.

    Args:
        chart: the description; names of colours may be CSS variables of the page.
        name: prefix of the element's ids, unique in the page.
    """
    spec = chart.to_dict() | {"config": _CONFIG}
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec))
    _restrict(root)
    _rename(root, name)
    root.set("aria-hidden", "true")
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    ElementTree.register_namespace("", _SVG)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _restrict(element: ElementTree.Element) -> None:
    """Drop every element and attribute that a static drawing does not need."""
    for child in list(element):
        if child.tag.removeprefix(f"{{{_SVG}}}") in _ELEMENTS:
            _restrict(child)
        else:
            element.remove(child)
    for key in list(element.attrib):
        if key.startswith(("on", "{", "aria", "role")) or key in ("style", "href", "class"):
            del element.attrib[key]


def _rename(root: ElementTree.Element, name: str) -> None:
    """Prefix ids, which all drawings of a page share."""
    for element in root.iter():
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.get('id')}")
        for key in _REFERENCES:
            value = element.get(key, "")
            if value.startswith("url(#"):
                element.set(key, value.replace("url(#", f"url(#{name}-", 1))
