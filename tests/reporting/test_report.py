import re
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from tersor.reporting import front, heat, pictures, sections, spread, tables
from tersor.reporting.record import Estimate, Row, Split
from tersor.reporting.report import render_html
from tersor.reporting.svg import Picture

VOID = {"meta", "img", "br"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "a", "div", "header", "main", "section", "footer", "nav", "h1",
    "h2", "h3", "p", "b", "span", "dl", "dt", "dd", "ol", "ul", "li", "table", "caption", "thead", "tbody", "tr", "th",
    "td", "figure", "figcaption", "details", "summary", "pre", "code", "br", "svg", "g", "path", "rect", "line", "text",
    "tspan", "defs", "clippath", "img",
}  # fmt: skip

PAYLOADS = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</style></title></svg><svg onload=alert(1)>",
    "<!--<![CDATA[",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt; &amp; ]]>",
    "javascript:alert(1)",
    "a\x00b\x1b]0;x\x07\u202ec\ud800",
    "datum['x'] + signal (1 to 2)",
)


class Page(HTMLParser):
    """Checks nesting and collects what a reader and a browser see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.comments = 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED, tag
        assert len({name for name, _ in attrs}) == len(attrs)
        if tag == "img":
            assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/]+=*", dict(attrs)["src"])
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def handle_comment(self, data):
        self.comments += 1

    @property
    def text(self) -> str:
        return "".join(self.words)


def check(html: str) -> Page:
    """A page loads nothing, runs nothing and leads nowhere but to itself."""
    page = Page(html)
    assert page.comments == 0
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("srcset", "action", "formaction", "xlink:href", "srcdoc"), (tag, name)
            assert name != "src" or tag == "img", tag
            if name == "href":
                assert value.startswith(("#", "./")), value
            if name == "style":
                assert re.fullmatch(r"--level:\d\.\d{3}", value), value
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    return page


def filled(value, text: str):
    """The same record with every string replaced, apart from those that have a form of their own."""
    if isinstance(value, Enum) or value is None:
        return value
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        return tuple(filled(entry, text) for entry in value)
    if isinstance(value, dict):
        return dict.fromkeys([text], filled(next(iter(value.values()), ""), text))
    if is_dataclass(value):
        changes = {f.name: filled(getattr(value, f.name), text) for f in fields(value) if f.name != "created"}
        return replace(value, **changes)
    return value


@pytest.fixture(scope="module")
def page(record) -> str:
    return render_html(record)


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures without drawings, which take a second each."""
    for module in (front, pictures, spread, heat):
        monkeypatch.setattr(module, "picture", lambda name, label, build: Picture(label, Markup(), Markup()))


def test_the_page_stands_alone(page):
    check(page)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert "<script" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_the_page_is_small_enough_to_mail(page):
    assert len(page) < 400_000


@pytest.mark.usefixtures("undrawn")
def test_the_parts_come_in_the_order_that_a_reader_needs(record):
    assert [section.anchor for section in sections.sections(record)] == [
        "comparison", "candidates", "layers", "operators", "sensitivity", "slices", "changed", "latency",
        "training", "certificate", "baselines", "roofline", "dropped", "budget", "environment", "command",
    ]  # fmt: skip


def test_the_verdict_comes_first_with_limit_and_interval(page, record):
    assert page.index(record.verdict.sentence) < page.index("Before and after")
    assert record.aim.limit in Page(page).text


def test_every_candidate_and_every_reason_is_in_the_page(page, record):
    text = Page(page).text
    for candidate in record.candidates:
        assert candidate.name in text
        assert candidate.dropped_because in text


def test_every_picture_is_named_and_has_its_numbers_in_a_table(page):
    assert page.count("<figure") == 6
    assert len(re.findall(r'<figure aria-label="[^"]{20,}"', page)) == 6
    for section in re.findall(r"<section.*?</section>", page, re.S):
        assert "<figure" not in section or "<table" in section


def test_headings_never_skip_a_level(page):
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_holding_and_missing_differ_in_shape_and_words_not_only_in_colour(page):
    chips = {re.sub("<[^>]*>", "", chip): re.search('<path d="([^"]*)', chip).group(1)
             for chip in re.findall(r'<span class="chip.*?</span>', page, re.S)}  # fmt: skip
    assert len(set(chips.values())) == len(chips) == 3


def test_a_bare_record_gives_a_page_without_empty_parts(bare):
    html = render_html(bare)
    check(html)
    assert "<section" not in html
    assert "Nothing was faster." in html


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.usefixtures("undrawn")
def test_hostile_text_everywhere_is_only_shown(record, payload):
    check(render_html(filled(record, payload)))


@pytest.mark.slow
def test_hostile_text_in_the_pictures_is_only_shown(record):
    html = render_html(filled(record, "".join(PAYLOADS)))
    check(html)
    assert html.count("<figure") >= 4


@given(text=st.text(max_size=40))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_gives_a_whole_page(bare, text):
    row = Row(name=text, recipe=(text, text), quality=Estimate(0.5, 0.4, 0.6), dropped_because=text or "x")
    aim = replace(bare.aim, limit=text, splits=(Split(name=text, samples=1, origin=text),))
    hostile = replace(bare, title=text, aim=aim, candidates=(row,), layers=(), warnings=(text,), command=text)
    page = check(render_html(hostile))
    assert "".join(page.text.split()).count("Limit:") == 1


def test_home_directories_and_secrets_stay_out_of_the_page(bare):
    leaking = replace(
        bare, command="tersor /home/ada/m.py --token hf_abcdefghijklmnopqrstu", machine={"cwd": "/home/ada/x"}
    )
    html = render_html(leaking)
    assert "ada" not in html
    assert "hf_" not in html
    assert "tersor ~/m.py --token [removed]" in html


def test_a_lower_is_better_metric_puts_the_largest_loss_first(record):
    lower = replace(record, aim=replace(record.aim, higher_is_better=False))
    worst = max(part.after - part.before for part in record.slices)
    first = tables.slices(lower).rows[0]
    assert float(first[3]) - float(first[2]) == pytest.approx(worst)


def test_a_column_of_the_layer_table_without_words_is_left_out(record):
    layers = tuple(replace(layer, reason="", kind="") for layer in record.layers)
    assert tables.layers(replace(record, layers=layers)).columns == ("layer", "change", "before", "after")


@pytest.mark.usefixtures("undrawn")
def test_a_long_recipe_is_short_in_the_table_and_whole_in_the_page(record):
    chosen = replace(record.candidates[record.chosen], recipe=tuple(f"step {n} of many" for n in range(9)))
    rows = tuple(chosen if n == record.chosen else row for n, row in enumerate(record.candidates))
    long = replace(record, candidates=rows)
    cell = tables.trials(long).rows[record.chosen + 1][1]
    assert cell.endswith("after 6 steps: step 6 of many; step 7 of many; step 8 of many")
    assert next(s for s in sections.sections(long) if s.anchor == "layers").steps == chosen.recipe


def test_an_original_that_is_shipped_is_not_compared_with_itself(record):
    table = tables.comparison(replace(record, chosen=None))
    assert table.columns == ("quantity", "original")
    assert all(len(row) == 2 for row in table.rows)


def colours(css: str) -> list[dict[str, str]]:
    """Light first, dark after it; dark inherits what it does not set."""
    roots = re.findall(r":root \{(.*?)\}", css, re.S)[:2]
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", root)) for root in roots)
    return [light, light | dark]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, definition of contrast ratio."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_can_be_told_from_the_paper(page, theme):
    palette = colours(page)[theme]
    for text in ("ink", "muted", "good", "bad", "link"):
        for ground in ("paper", "panel"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    for text, ground in (
        ("good", "good-wash"),
        ("bad", "bad-wash"),
        ("muted", "plain-wash"),
        ("ink", "bad-wash"),
    ):
        assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    for mark in ("c1", "c2", "c3", "c4", "c5", "c6"):
        assert contrast(palette[mark], palette["paper"]) >= 3, mark


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_the_darkest_cell_of_the_heat_map_can_be_read(page, theme):
    palette = colours(page)[theme]
    share = float(re.search(r"var\(--level, 0\) \* (\d+)%", page).group(1)) / 100
    mixed = "#" + "".join(
        f"{round(share * int(palette['heat'][i : i + 2], 16) + (1 - share) * int(palette['panel'][i : i + 2], 16)):02x}"
        for i in (1, 3, 5)
    )
    assert contrast(palette["ink"], mixed) >= 4.5


def test_samples_are_shown_only_where_they_were_asked_for(record):
    assert 'alt="sample 17"' in render_html(record)
    assert "target 8, original 8, shipped 3" in render_html(record)
    assert "Answers that changed" not in render_html(replace(record, changed=()))


def test_the_distance_from_the_limit_is_in_picture_and_table(record):
    html = render_html(record)
    assert "23% of its limit" in html
    assert "shortest time" in html


@pytest.mark.parametrize(("value", "label"), [(2.0, "faster"), (0.4, "as fast"), (1.0, "faster")])
def test_an_answer_that_is_slower_is_not_called_faster(record, value, label):
    shipped = replace(record.shipped, speedup=Estimate(value, 0.9 * value, 1.1 * value))
    rows = tuple(shipped if row is record.shipped else row for row in record.candidates)
    found = sections.highlights(replace(record, candidates=rows))
    assert [h.label for h in found if h.label in ("faster", "as fast")] == [label]
