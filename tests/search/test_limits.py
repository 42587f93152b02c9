"""Quantities with units."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.errors import ArgumentError
from tersor.search.limits import Limits, parse_bytes, parse_limits


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "1MB", 1e6),
        ("size", "512 KiB", 524_288),
        ("size", "3e2kB", 3e5),
        ("latency", "2ms", 0.002),
        ("latency", "1500us", 0.0015),
        ("latency", "250µs", 0.00025),
        ("memory", "0.5GB", 5e8),
    ],
)
def test_a_quantity_is_read_in_its_unit(name, text, value):
    assert getattr(parse_limits({name: text}), name) == pytest.approx(value)


@pytest.mark.parametrize("text", ["1", "1Mb", "1mb", "MB", "-1MB", "0MB", "1 M B", "1e999MB", "nanMB", "2ms"])
def test_a_size_without_a_clear_unit_is_refused_with_those_that_are(text):
    with pytest.raises(ArgumentError, match="MiB"):
        parse_limits({"size": text})


def test_an_unknown_limit_names_the_closest():
    with pytest.raises(ArgumentError, match="Did you mean 'latency'"):
        parse_limits({"latncy": "2ms"})


@given(st.integers(1, 10**12))
def test_bytes_may_be_a_number(count):
    assert parse_bytes("max_memory", count) == count


def test_limits_are_written_as_they_are_checked():
    assert str(parse_limits({"size": "1MB", "latency": "2ms"})) == "size <= 1 MB, latency <= 2 ms"
    assert not Limits()
