import re
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tersor.reporting.record import Row
from tersor.reporting.terminal import render_terminal


def test_plain_lines_carry_no_control_codes_and_end_with_the_verdict(record):
    lines = render_terminal(record).splitlines()
    assert not re.search("[\x00-\x1f\x7f]", "".join(lines))
    assert lines[0] == f"limit: {record.aim.limit}"
    assert lines[-2:] == [record.verdict.sentence, record.verdict.advice]
    shipped = next(line for line in lines if line.endswith("<- shipped"))
    assert shipped.startswith("prune 50 %, distil, int8  holds")


def test_a_candidate_that_was_not_made_says_why(bare):
    row = Row(name="joint 70%", dropped_because="could not be built: took longer than the 2 s that were left")
    assert f"\n{row.name}  {row.dropped_because}\n" in render_terminal(replace(bare, candidates=(row,)))


def test_a_terminal_gets_the_same_verdict_and_no_line_wider_than_it_is(record):
    text = re.sub("\x1b\\[[0-9;]*m", "", render_terminal(record, terminal=True, width=80))
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert record.verdict.sentence in " ".join(text.split())
    assert "misses" in text


def test_markup_in_names_is_shown_not_obeyed(bare):
    named = replace(bare, candidates=(Row(name="[bold red]x[/]:smile:"),), title="[link=http://evil]y[/link]")
    assert "[bold red]x[/]:smile:" in render_terminal(named, terminal=True)


@given(text=st.text(st.characters(codec=None, exclude_categories=()), max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_no_text_reaches_the_terminal_as_a_control_code(bare, text):
    named = replace(bare, candidates=(Row(name=text),), warnings=(text,))
    plain = render_terminal(named)
    rich = re.sub("\x1b\\[[0-9;]*m", "", render_terminal(named, terminal=True))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", plain + rich)
    assert len(plain.splitlines()) == 6
