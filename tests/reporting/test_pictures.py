import re
from dataclasses import replace
from xml.etree import ElementTree

import altair as alt
import pytest

from tersor.reporting import front, heat, pictures, spread
from tersor.reporting.details import Roofline, RooflinePoint
from tersor.reporting.record import Aim, Curve, Estimate, Latency, Layer, Row, Standing
from tersor.reporting.svg import NARROW, WIDE, Picture, draw


@pytest.fixture(scope="module")
def pareto(record) -> Picture:
    return front.pareto(record)


def texts(svg: str) -> list[str]:
    return [
        element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    ]


def test_the_front_shows_the_floor_the_numbers_and_every_standing(pareto):
    shown = texts(pareto.wide)
    assert {"floor 0.9761", "1", "8", "original", "holds", "misses", "not tested"} <= set(shown)


def test_where_lower_is_better_the_line_is_a_limit(record):
    shown = texts(front.pareto(replace(record, aim=replace(record.aim, higher_is_better=False))).wide)
    assert "limit 0.9761" in shown


def test_the_axis_of_quality_keeps_to_the_values(pareto):
    assert {"0.95", "0.97"} <= {text.rstrip("0") for text in texts(pareto.wide)}
    assert not {"0.0", "0.2", "0.5"} & set(texts(pareto.wide))


def test_holding_and_missing_points_differ_in_shape(pareto):
    legend = re.findall(r'<path transform="[^"]*" d="([^"]*)"[^>]*fill="var\(--(good|bad)\)"', pareto.wide)
    assert {colour for _, colour in legend} == {"good", "bad"}
    shapes = {colour: {d for d, c in legend if c == colour} for colour in ("good", "bad")}
    assert shapes["good"].isdisjoint(shapes["bad"])


def test_colours_come_from_the_page(pareto):
    for svg in (pareto.wide, pareto.narrow):
        found = set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg))
        assert all(c.startswith(("var(--", "url(#")) or c in ("none", "transparent") for c in found), found


def test_both_widths_are_drawn_for_their_width(pareto):
    for svg, width in ((pareto.wide, WIDE), (pareto.narrow, NARROW)):
        box = [float(v) for v in re.search('viewBox="([^"]*)"', svg).group(1).split()]
        assert box[2] == pytest.approx(width, rel=0.06)


def test_the_picture_of_the_margin_says_its_numbers(record):
    assert (
        "0.0028 (−0.0041 to 0.0086)" in pictures.margin(record).label
        or "0.0028" in pictures.margin(record).label
    )
    assert "limit" in texts(pictures.margin(record).wide)


def test_without_numbers_there_is_no_picture(bare):
    assert pictures.margin(bare) is None
    assert front.pareto(bare) is None
    assert spread.latency(bare) is None
    assert pictures.roofline(bare) is None
    assert pictures.curves(bare) == ()


def test_missing_and_extreme_numbers_are_drawn(bare):
    nan = float("nan")
    rows = (
        Row(name="a", quality=Estimate(0.5), size_bytes=10),
        Row(name="b", quality=Estimate(nan), size_bytes=1),
        Row(name="c", quality=Estimate(0.5, nan, 0.6), size_bytes=10**12, standing=Standing.HOLDS),
    )
    aim = replace(bare.aim, goal="size", allowed_drop=0.0)
    record = replace(
        bare,
        aim=aim,
        base=replace(bare.base, drop=Estimate(0.0)),
        candidates=rows,
        curves=(
            Curve(name="x", quantity="loss", steps=(0, 1, 2), values=(nan, 1e9, 1e-9)),
            Curve(name="y", quantity="empty", steps=(), values=()),
        ),
        roofline=Roofline(
            macs_per_s=1e9,
            bytes_per_s=1e9,
            points=(RooflinePoint(name="z", macs_per_byte=1e-3, macs_per_s=1.0),),
        ),
    )
    assert pictures.margin(record) is not None
    assert "2 models" in front.pareto(record).label
    assert [quantity for quantity, _ in pictures.curves(record)] == ["empty", "loss"]
    assert pictures.roofline(record) is not None


def test_latency_is_drawn_from_quantiles_where_single_times_are_not_known(record):
    def thinned(row):
        return replace(row, latency=replace(row.latency, samples_s=()))

    chosen = record.candidates[record.chosen]
    rows = tuple(thinned(row) if row is chosen else row for row in record.candidates)
    drawn = spread.latency(replace(record, base=thinned(record.base), candidates=rows))
    assert texts(drawn.wide).count("median") == 4  # each twice, the first time as the halo
    only_median = Latency(median_s=1e-3)
    assert spread.latency(replace(record, chosen=None, base=Row(name="x", latency=only_median))) is not None


def test_many_layers_get_a_picture_of_the_whole_and_few_do_not(record):
    layers = tuple(Layer(name=f"l{i}", sensitivity={"int8": i / 100, "int4": None}) for i in range(60))
    assert heat.overview(heat.heat(record)) is None
    drawn = heat.overview(heat.heat(replace(record, layers=layers)))
    assert {"int8", "int4"} <= set(texts(drawn.wide))


def test_hostile_names_stay_text():
    payload = "</text><script>alert(1)</script>'\"&[0].x\\"
    chart = alt.Chart(alt.InlineData(values=[{"x": 1, "n": payload}])).mark_text().encode(x="x:Q", text="n:N")
    svg = draw(chart, "p")
    assert "<script" not in svg
    assert payload in texts(svg)


def test_links_styles_and_unknown_elements_are_dropped():
    chart = (
        alt.Chart(alt.InlineData(values=[{"x": 1, "u": "https://evil.example"}]))
        .mark_point()
        .encode(x="x:Q", href="u:N")
    )
    assert "evil" not in draw(chart, "p")


def test_ids_of_two_drawings_do_not_meet():
    chart = alt.Chart(alt.InlineData(values=[{"x": 1}])).mark_point(clip=True).encode(x="x:Q")
    drawings = [draw(chart, name) for name in ("one", "other")]
    one, other = (set(re.findall(r'\bid="([^"]*)"', svg)) for svg in drawings)
    assert one
    assert one.isdisjoint(other)
    assert set(re.findall(r"url\(#([^)]*)\)", drawings[0])) <= one


@pytest.mark.parametrize("goal", ["latency", "throughput", "size", "memory", "something else"])
def test_every_goal_has_its_axis(record, goal):
    aim: Aim = replace(record.aim, goal=goal)
    rows = tuple(replace(row, peak_bytes=row.size_bytes) for row in record.candidates)
    assert front.pareto(replace(record, aim=aim, candidates=rows)) is not None
