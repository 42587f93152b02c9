"""Which candidates are tested on the sealed data, on made-up qualities and times."""

import math
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tersor.exporting.artefact import Artefact
from tersor.loading.metric import Metric
from tersor.measurement.quality import Quality
from tersor.planning.plan import Plan, Quantize
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.ending import Ending
from tersor.search.finalists import better, choose_finalists, judge, safety, shortcoming
from tersor.search.limits import Limits
from tersor.search.outcome import Fate
from tests.search.times import compared

ACCURACY = Metric("accuracy", lambda o, t: float((o == t).float().mean()))


def quality(correct, count=1000):
    scores = torch.cat([torch.ones(correct), torch.zeros(count - correct)])
    return Quality(correct / count, scores, tuple(range(count)), count)


def timed(ratio, spread=0.01):
    return compared(ratio, ratio * (1 - spread), ratio * (1 + spread))


def candidate(name, correct, ratio, macs=100, spread=0.01):
    return Candidate(name, Plan(), quality=quality(correct), speed=timed(ratio, spread), macs=macs)


@pytest.fixture
def run():
    return SimpleNamespace(
        base=Candidate("original", Plan(), quality=quality(950), macs=1000),
        margin=0.02,
        task=SimpleNamespace(metric=ACCURACY, certification=range(1000)),
        ending=Ending(),
        clock=Clock(),
        request=SimpleNamespace(
            goal="latency", limits=Limits(), targets=("onnxruntime",), confidence=0.95, seed=0
        ),
        drop=lambda c: 0.95 - c.quality.value,
    )


def test_finalists_go_from_the_safest_to_the_boldest_and_each_is_faster(run):
    made = [
        candidate("bold", 940, 3.0, 20),
        candidate("mild", 950, 1.5, 80),
        candidate("middle", 945, 2.0, 50),
    ]
    finalists, others = choose_finalists(run, made)
    assert [c.name for c in finalists] == ["mild", "middle", "bold"]
    assert others == []


def test_a_candidate_outside_the_limit_is_missed(run):
    finalists, (missed,) = choose_finalists(run, [candidate("far", 900, 9.0)])
    assert finalists == []
    assert missed.fate is Fate.MISSED
    assert "0.0500" in missed.reason


def test_a_candidate_whose_interval_holds_one_is_not_better(run):
    _, (same,) = choose_finalists(run, [candidate("same", 950, 1.005)])
    assert same.fate is Fate.NOT_BETTER


def test_a_gain_without_an_interval_goes_to_the_test_and_is_decided_by_the_final_measurement(run):
    open_ended = {"low": 0.0, "high": math.inf}
    fast, slow = (
        replace(candidate("a", 950, ratio), speed=replace(timed(ratio), **open_ended)) for ratio in (1.5, 0.9)
    )
    assert judge(run, fast).fate is Fate.UNTESTED
    assert shortcoming(run, fast, final=True)[0] is Fate.NOT_BETTER
    assert "too few undisturbed turns" in shortcoming(run, fast, final=True)[1]
    assert judge(run, slow).fate is Fate.NOT_BETTER


def test_a_bolder_candidate_that_is_not_faster_is_dominated(run):
    made = [candidate("good", 950, 3.0, 80), candidate("worse", 950, 2.0, 50)]
    finalists, (worse,) = choose_finalists(run, made)
    assert [c.name for c in finalists] == ["good"]
    assert worse.fate is Fate.DOMINATED


def test_a_milder_candidate_stays_as_a_last_resort_where_the_data_cannot_tell(run):
    made = [
        candidate("mild", 950, 1.5, 800),
        candidate("bold", 942, 3.0, 20),
    ]
    finalists, others = choose_finalists(run, made)
    assert [c.name for c in finalists] == ["mild", "bold"]
    assert others == []


def test_a_candidate_is_not_given_up_for_a_milder_one_that_the_data_speak_against(run):
    made = [
        candidate("float", 934, 2.7, 500),
        candidate("integers", 950, 2.6, 400),
        candidate("bold", 941, 4.0, 20),
    ]
    finalists, _ = choose_finalists(run, made)
    assert [c.name for c in finalists] == ["integers", "bold"]


def test_a_candidate_that_would_only_end_the_test_early_is_not_tested(run):
    made = [
        candidate("mild", 950, 1.5, 800),
        candidate("unlucky", 940, 2.8, 50),
        candidate("bold", 945, 3.0, 20),
    ]
    finalists, (unlucky,) = choose_finalists(run, made)
    assert [c.name for c in finalists] == ["mild", "bold"]
    assert "end the test early" in unlucky.reason


def test_rounding_alone_goes_before_a_cut_that_may_fail_and_half_of_the_work_gone_does_not(run):
    def small_data(name, ratio, macs, *edits):
        return Candidate(name, Plan(edits), quality=quality(238, 250), speed=timed(ratio), macs=macs)

    run.base, run.margin = Candidate("original", Plan(), quality=quality(238, 250), macs=1000), 0.01
    run.task.certification, run.drop = range(647), lambda c: 238 / 250 - c.quality.value
    cuts = [small_data("cut", 1.9, 447), small_data("deep cut", 2.4, 245)]
    rounded = small_data("int8", 1.18, 1000, Quantize("fc"))
    assert choose_finalists(run, [*cuts, rounded])[0][0].name == "int8"
    halved = small_data("half", 1.18, 500)
    assert choose_finalists(run, [*cuts, halved])[0][0].name != "half"


def test_a_slower_candidate_that_is_clearly_safer_goes_before_a_faster_one_and_does_not_replace_it(run):
    made = [
        candidate("float", 936, 2.1, 500),
        candidate("integers", 950, 1.9, 250),
    ]
    finalists, others = choose_finalists(run, made)
    assert [c.name for c in finalists] == ["integers", "float"]
    assert others == []


def test_a_network_that_was_trained_longer_takes_the_place_of_the_one_it_came_from(run):
    made = [candidate("bold", 942, 3.0, 20), candidate("bold longer", 948, 3.01, 20)]
    finalists, (bold,) = choose_finalists(run, made)
    assert [c.name for c in finalists] == ["bold longer"]
    assert bold.fate is Fate.DOMINATED


def test_a_candidate_that_the_data_speak_against_goes(run):
    made = [candidate("mild", 932, 1.5, 80), candidate("bold", 950, 3.0, 20)]
    finalists, (mild,) = choose_finalists(run, made)
    assert [c.name for c in finalists] == ["bold"]
    assert "clearly safer" in mild.reason


def test_work_decides_where_times_do_not(run):
    noisy = [
        candidate("light", 945, 2.0, macs=50, spread=0.3),
        candidate("heavy", 945, 2.1, macs=90, spread=0.3),
    ]
    assert better(run, noisy[0], noisy[1])
    assert not better(run, noisy[1], noisy[0])
    finalists, _ = choose_finalists(run, noisy)
    assert finalists[-1].name == "light"


def test_intervals_that_just_touch_do_not_hide_which_is_faster(run):
    cut = candidate("cut", 945, 2.31, macs=90, spread=0.1)
    integers = candidate("integers", 945, 1.91, macs=50, spread=0.1)
    assert better(run, cut, integers)
    finalists, _ = choose_finalists(run, [integers, cut])
    assert finalists[-1].name == "cut"


@given(st.lists(st.tuples(st.integers(930, 960), st.floats(0.5, 9.0), st.integers(1, 100)), max_size=20))
def test_finalists_are_at_most_eight_ordered_and_account_for_all(rows):
    run = SimpleNamespace(
        base=Candidate("original", Plan(), quality=quality(950), macs=1000),
        margin=0.02,
        task=SimpleNamespace(metric=ACCURACY, certification=range(1000)),
        ending=Ending(),
        clock=Clock(),
        request=SimpleNamespace(
            goal="latency", limits=Limits(), targets=("onnxruntime",), confidence=0.95, seed=0
        ),
        drop=lambda c: 0.95 - c.quality.value,
    )
    made = [candidate(str(i), correct, ratio, macs) for i, (correct, ratio, macs) in enumerate(rows)]
    finalists, others = choose_finalists(run, made)
    assert len(finalists) <= 8
    assert sorted(c.name for c in (*finalists, *others)) == sorted(c.name for c in made)
    assert all(
        min(3.0, safety(run, later)) <= safety(run, earlier) + 1.0
        for earlier, later in combinations(finalists, 2)
    )
    assert all(better(run, later, earlier) for earlier, later in pairwise(finalists))


def test_a_candidate_over_a_limit_is_out_with_numbers_and_one_within_it_need_not_be_faster_than_one_that_is_over(
    run,
):
    run.rival = Artefact("onnxruntime", Path("base.onnx"), 4_000_000, "")
    small = replace(candidate("small", 950, 0.9), artefact=replace(run.rival, size_bytes=900_000))
    large = replace(candidate("large", 950, 1.5), artefact=replace(run.rival, size_bytes=1_100_000))
    run.request.limits = Limits(size=1e6)
    assert judge(run, small).fate is Fate.UNTESTED
    over = judge(run, large)
    assert over.fate is Fate.OVER_LIMIT
    assert "size 1.1 MB, where 1 MB is allowed" in over.reason
    run.request.limits = Limits(size=1e7)
    assert judge(run, small).fate is Fate.NOT_BETTER
    run.request.limits = Limits(latency=0.1)
    assert "latency" in judge(run, small).reason
