"""How carefully a search ends in the time that is left."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.loading.choose import metric_of
from tersor.planning.plan import Plan
from tersor.search.baseline import foreseen
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.conduct import _outcome
from tersor.search.ending import PACES, Ending
from tersor.search.outcome import Fate, Outcome

SECONDS = st.floats(0.0, 5.0)


@given(SECONDS, SECONDS, st.floats(0.0, 1e4), st.integers(0, 40))
def test_an_end_fits_the_time_unless_the_quickest_does_not(launch_s, sealed_s, left_s, files):
    ending = Ending(launch_s, sealed_s)
    pace = ending.pace(left_s, files)
    assert ending.total_s(pace, files) <= left_s or pace is PACES[-1]
    more = ending.pace(2 * left_s, files)
    assert PACES.index(more) <= PACES.index(pace)


@given(SECONDS, SECONDS, st.integers(0, 40), st.floats(1.0, 1e4))
def test_the_reserve_is_what_the_end_takes_and_grows_with_the_files(launch_s, sealed_s, files, budget_s):
    ending = Ending(launch_s, sealed_s)
    reserve_s = ending.reserve_s(budget_s, files)
    assert reserve_s in [ending.total_s(pace, files) for pace in PACES]
    assert reserve_s <= 0.3 * budget_s or reserve_s == ending.total_s(PACES[-1], files)
    assert ending.total_s(PACES[-1], files + 1) > ending.total_s(PACES[-1], files)


@given(SECONDS, st.floats(0.01, 60.0), st.integers(1, 8), st.integers(3, 40))
def test_the_finalists_that_time_is_kept_for_can_always_be_tested(launch_s, sealed_s, most, files):
    ending = Ending(launch_s, sealed_s)
    left_s = ending.total_s(PACES[-1], files) - 1.2 * ending.measuring_s(PACES[-1], files)
    fit = ending.finalists(left_s + 1e-6, most)
    assert min(most, 3) <= fit <= most
    assert ending.finalists(2 * left_s, most) >= fit


def test_candidates_get_what_the_end_does_not_need():
    clock = Clock(100.0)
    clock.reserve_s = 40.0
    assert 59.0 < clock.left_s <= 60.0
    assert Clock().left_s == float("inf")
    begun_before = Clock(100.0, clock.start_s - 30.0, reserve_s=40.0)
    assert 29.0 < begun_before.left_s <= 30.0


def test_a_search_without_an_answer_says_whether_more_time_could_help():
    assert _outcome(None, (), hurried=True) is Outcome.OUT_OF_TIME
    assert _outcome(None, (), hurried=False) is Outcome.NOTHING_HELD
    assert "budget" in Outcome.OUT_OF_TIME.value


@pytest.mark.parametrize(
    ("fates", "outcome"),
    [
        ((), Outcome.NOTHING_HELD),
        ((Fate.MISSED,), Outcome.NOTHING_HELD),
        ((Fate.NOT_BETTER,), Outcome.NOTHING_BETTER),
        ((Fate.NOT_BETTER, Fate.FAILED), Outcome.NOTHING_BETTER),
        ((Fate.NOT_BETTER, Fate.REFUSED, Fate.UNTESTED), Outcome.NOTHING_HELD),
        ((Fate.NOT_BETTER, Fate.MISSED), Outcome.NOTHING_HELD),
        ((Fate.NOT_BETTER, Fate.OVER_LIMIT), Outcome.NOTHING_FITS),
    ],
)
def test_a_larger_drop_is_advised_where_accuracy_stood_in_the_way(fates, outcome):
    tried = tuple(Candidate(str(number), Plan(), fate=fate) for number, fate in enumerate(fates))
    assert _outcome(None, tried, hurried=False) is outcome


def test_time_is_kept_for_redrawing_a_slow_metric_of_a_whole_set(found):
    def slow(preds, target):
        time.sleep(0.002)
        return (preds.argmax(1) == target).float().mean()

    run = found.result.run
    whole = replace(run.task, metric=metric_of(slow))
    scored = foreseen(run.base.artefact, run.task)
    redrawn = foreseen(run.base.artefact, whole)
    assert redrawn.sealed_s - scored.sealed_s > 2 * 10_000 * 0.002
    assert redrawn.total_s(PACES[-1], 1) > redrawn.sealed_s


def test_a_metric_that_fails_on_a_redrawn_batch_does_not_end_the_search(found):
    def broken(preds, target):
        raise ValueError("only one class")

    run = found.result.run
    assert foreseen(run.base.artefact, replace(run.task, metric=metric_of(broken))).sealed_s < 40
