"""Which of the finalists that hold is returned, with real files of real speed."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tersor.exporting.export import export
from tersor.planning.plan import Plan
from tersor.search.answer import in_preference
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.ending import Ending
from tests.search.times import compared

IMAGES = (torch.zeros(1, 16),)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    wide = nn.Sequential(nn.Linear(16, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 4))
    return {
        "slow": export(wide, IMAGES, folder / "slow.onnx"),
        "fast": export(nn.Linear(16, 4), IMAGES, folder / "fast.onnx"),
    }


def candidate(name, file, speed):
    return Candidate(name, Plan(), artefact=file, speed=speed)


def run_with(goal="latency", budget_s=None, heard=None):
    heard = [] if heard is None else heard
    return SimpleNamespace(
        request=SimpleNamespace(goal=goal, threads=1, call_size=1),
        task=SimpleNamespace(inputs=IMAGES),
        ending=Ending(),
        clock=Clock(budget_s),
        say=lambda phase, text: heard.append(text),
    )


UNCLEAR, CLEAR = compared(2.0, 1.2, 3.2), compared(2.0, 1.99, 2.01)


@pytest.fixture
def quick(monkeypatch):
    from tersor.search import ending

    monkeypatch.setattr(ending, "PACES", ending.PACES[-1:])


def names(candidates):
    return [candidate.name for candidate in candidates]


def test_of_two_that_hold_the_faster_is_returned_where_their_first_times_overlap(files, quick):
    heard = []
    mild, bold = candidate("mild", files["fast"], UNCLEAR), candidate("bold", files["slow"], UNCLEAR)
    assert names(in_preference(run_with(heard=heard), [mild, bold])) == ["mild", "bold"]
    assert "as fast as bold" in heard[0]


def test_the_boldest_is_returned_where_the_one_before_it_is_not_faster(files, quick):
    mild, bold = candidate("mild", files["slow"], UNCLEAR), candidate("bold", files["fast"], UNCLEAR)
    assert names(in_preference(run_with(), [mild, bold])) == ["bold", "mild"]


def test_the_one_before_the_last_but_one_can_be_the_fastest(files, quick):
    made = [
        candidate("first", files["fast"], UNCLEAR),
        candidate("second", files["slow"], UNCLEAR),
        candidate("third", files["slow"], UNCLEAR),
    ]
    assert names(in_preference(run_with(), made))[0] == "first"


@pytest.mark.parametrize(
    ("options", "speeds"),
    [
        ({}, (compared(1.5, 1.49, 1.51), CLEAR)),
        ({"budget_s": 1.0}, (UNCLEAR, UNCLEAR)),
        ({"goal": "memory"}, (UNCLEAR, UNCLEAR)),
    ],
    ids=["times that told them apart", "no time left", "another goal"],
)
def test_nothing_is_timed_again_where_it_is_not_needed_or_there_is_no_time(files, options, speeds):
    heard = []
    mild, bold = candidate("mild", files["fast"], speeds[0]), candidate("bold", files["slow"], speeds[1])
    assert names(in_preference(run_with(heard=heard, **options), [mild, bold])) == ["bold", "mild"]
    assert heard == []


def test_first_times_without_an_interval_are_looked_at_again(files, quick):
    open_ended = replace(UNCLEAR, low=0.0, high=math.inf)
    mild, bold = candidate("mild", files["fast"], open_ended), candidate("bold", files["slow"], open_ended)
    assert names(in_preference(run_with(), [mild, bold]))[0] == "mild"


def test_where_none_holds_there_is_none_to_return():
    assert in_preference(run_with(), []) == []
