import json
import re
from dataclasses import replace
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.reporting.card import escape_markdown, render_card
from tersor.reporting.clean import clean_text

markdown_it = pytest.importorskip("markdown_it")

HOSTILE = [
    "<script>alert(1)</script>", "[x](javascript:alert(1))", "![x](http://evil/x.png)", "`code`", "**bold**", "a | b",
    "# heading", "- item", "1. item", "23) item", "> quote", "---", "===", "&lt;b&gt;",
    "http://evil.example/", "www.evil.example",
    "@everyone", "$x$", "~~gone~~", "\\", "\\*", "a\n\nb", "<!-- -->", "|", "{{ x }}", "_x_", "+ item", "* item",
    ":--:",
]  # fmt: skip


def shown(markdown: str) -> str:
    html = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(markdown)
    assert re.fullmatch(r"<p>[^<>]*</p>\n", html), html
    return unescape(html[3:-5])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_it_is(text):
    assert shown(escape_markdown(text)) == " ".join(text.split())


@given(
    st.text(alphabet="ab1.)-+=#>*_`[]()!<&;|~\\$@:/ \n\t'\"{}^", min_size=1, max_size=30).filter(
        lambda text: text.strip()
    )
)
def test_any_text_is_shown_as_it_is(text):
    assert shown(escape_markdown(text)) == " ".join(text.split())


def test_text_cannot_leave_its_table_cell():
    table = f"| h |\n| --- |\n| {escape_markdown('a | b')} |\n"
    assert "<td>a | b</td>" in markdown_it.MarkdownIt("gfm-like", {"linkify": False}).render(table)


def test_the_front_matter_is_yaml_with_the_certified_quality(record):
    yaml = pytest.importorskip("yaml")
    text = render_card(record)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.9806
    assert "base_model" not in front


def test_a_model_of_the_hub_is_linked(record):
    yaml = pytest.importorskip("yaml")
    text = render_card(replace(record, aim=replace(record.aim, model="org/model-1", kind="tokens")))
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["base_model"] == "org/model-1"
    assert front["pipeline_tag"] == "token-classification"


@given(st.text(max_size=60))
def test_any_title_keeps_the_front_matter_whole(title):
    yaml = pytest.importorskip("yaml")
    line = "title: " + json.dumps(clean_text(title), ensure_ascii=False)
    assert yaml.safe_load(line)["title"] == clean_text(title)


def test_a_command_cannot_close_its_fence(record):
    text = render_card(replace(record, command="x ```\n# heading\n````"))
    tokens = markdown_it.MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    assert any(t.type == "fence" and "# heading" in t.content for t in tokens)


def test_a_bare_record_gives_a_card(bare):
    text = render_card(bare)
    assert "Nothing was faster." in text
    assert "Certificate" not in text
