import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.errors import ArgumentError
from tersor.loading.limit import Drop, parse_budget, parse_drop


def test_a_per_cent_sign_makes_a_drop_relative_and_its_absence_absolute():
    assert parse_drop("1%") == Drop(0.01, relative=True)
    assert parse_drop(" 2.5 % ") == Drop(0.025, relative=True)
    assert parse_drop(0.01) == parse_drop("0.01") == Drop(0.01, relative=False)
    assert parse_drop(0) == Drop(0.0, relative=False)
    assert parse_drop(Drop(0.1, True)) == Drop(0.1, True)


@pytest.mark.parametrize(
    "value", ["", "one", "-1%", -0.01, "100%", "250%", "nan", math.inf, True, None, "1%%"]
)
def test_a_drop_that_is_no_drop_is_refused_with_both_forms_named(value):
    with pytest.raises(ArgumentError, match=r"'1%'.*0\.01"):
        parse_drop(value)


def test_the_floor_follows_the_direction_of_the_metric():
    assert Drop(0.01, False).floor(0.922) == pytest.approx(0.912)
    assert Drop(0.01, True).floor(0.922) == pytest.approx(0.91278)
    assert Drop(0.01, True).floor(4.0, higher_is_better=False) == pytest.approx(4.04)
    assert Drop(0.5, False).floor(4.0, higher_is_better=False) == pytest.approx(4.5)


def test_a_relative_drop_of_a_negative_baseline_still_goes_down():
    assert Drop(0.1, True).floor(-2.0) == pytest.approx(-2.2)


def test_a_drop_that_would_accept_any_model_is_refused_with_the_likely_meaning():
    with pytest.raises(ArgumentError, match="'1%'"):
        parse_drop(1).floor(0.9)


def test_a_baseline_that_is_not_a_number_has_no_floor():
    with pytest.raises(ArgumentError, match="baseline"):
        parse_drop("1%").floor(math.nan)


def test_the_words_are_those_of_the_interface():
    assert parse_drop(0.01).words("accuracy", 0.922) == (
        "limit: accuracy >= 0.9120 (baseline 0.9220, absolute 0.0100)"
    )


@given(st.floats(0, 0.99), st.floats(0.01, 100), st.booleans())
def test_the_floor_is_never_better_than_the_baseline(amount, baseline, higher):
    floor = Drop(amount, relative=True).floor(baseline, higher)
    assert floor <= baseline if higher else floor >= baseline


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("1h30m", 5400),
        ("90s", 90),
        ("2d", 172_800),
        ("1h 5m 3s", 3903),
        (45, 45),
        ("0.5h", 1800),
    ],
)
def test_budgets_are_read_in_the_usual_forms(text, seconds):
    assert parse_budget(text) == seconds


def test_no_budget_is_no_limit():
    assert parse_budget(None) is None


@pytest.mark.parametrize("value", ["", "soon", "30x", "m30", 0, -5, "0s", math.inf, True, "1h-5m"])
def test_a_budget_that_is_no_time_is_refused(value):
    with pytest.raises(ArgumentError, match="30m"):
        parse_budget(value)
