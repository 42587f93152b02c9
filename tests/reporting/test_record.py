import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from tersor.errors import ArgumentError
from tersor.reporting.record import Curve, Estimate, Record, Row, Standing
from tersor.reporting.report import render_json


def test_a_record_comes_back_from_its_json(record, bare):
    assert Record.from_json(record.to_json()) == record
    assert Record.from_json(bare.to_json()) == bare


def test_a_record_cannot_be_changed(record):
    with pytest.raises(FrozenInstanceError):
        record.title = "other"


def test_numbers_that_are_not_finite_become_missing_and_json_stays_valid(bare):
    curve = Curve(name="a", quantity="loss", steps=(0, 1), values=(1.0, float("nan")))
    text = replace(bare, base=Row(name="a", quality=Estimate(float("inf"))), curves=(curve,)).to_json()
    json.loads(text, parse_constant=pytest.fail)
    assert Record.from_json(text).curves[0].values == (1.0, None)


def test_numpy_numbers_are_taken():
    row = Row(name="a", size_bytes=np.int64(7), quality=Estimate(np.float32(0.5), np.float64(0.25)))
    assert type(row.size_bytes) is int
    assert row.quality == Estimate(0.5, 0.25)


def test_a_field_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="typo"):
        Row(name="a", typo=1)


@pytest.mark.parametrize("value", ["x", [1], {}])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(ValueError, match=r"number|float"):
        Estimate(value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"title": 1}', "null", "\x00"])
def test_text_that_is_no_record_is_refused_in_a_sentence(text):
    with pytest.raises(ArgumentError, match="not a tersor record"):
        Record.from_json(text)


def test_a_record_of_another_schema_is_refused(bare):
    text = bare.to_json().replace('"schema": 1', '"schema": 99')
    with pytest.raises(ArgumentError, match="schema 99"):
        Record.from_json(text)


@pytest.mark.parametrize("chosen", [-1, 8])
def test_the_chosen_candidate_must_exist(record, chosen):
    with pytest.raises(ValueError, match="index into the 8 candidates"):
        replace(record, chosen=chosen)


def test_the_time_must_be_a_time(bare):
    with pytest.raises(ValueError, match="ISO 8601"):
        replace(bare, created="yesterday")


def test_what_is_shipped_is_the_chosen_candidate_or_the_original(record, bare):
    assert record.shipped.name == "prune 50 %, distil, int8"
    assert record.shipped.standing is Standing.HOLDS
    assert bare.shipped is bare.base


def test_report_json_holds_the_record(record):
    assert Record.from_json(render_json(record)) == record
