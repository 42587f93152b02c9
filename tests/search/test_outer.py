"""The multipliers that the outer search tries."""

import math

import pytest

from tersor.planning.space import Unit
from tersor.search.outer import Multipliers, knob_of, knobs_of, search_multipliers

pytest.importorskip("optuna")

UNITS = [
    Unit(kind, f"{kind}{i}", (1, 0), (0.0, 1.0), stage=i / 5) for kind in ("prune", "drop") for i in range(6)
]


def test_each_unit_has_the_multiplier_of_its_kind_and_stage():
    assert knob_of(UNITS[0]) == "prune.early"
    assert knob_of(UNITS[-1]) == "drop.late"
    assert set(knobs_of(UNITS)) == {
        f"{k}.{s}" for k in ("prune", "drop") for s in ("early", "middle", "late")
    }
    assert Multipliers({"drop.late": math.log(3.0)})(UNITS[-1]) == pytest.approx(3.0)
    assert Multipliers({})(UNITS[0]) == 1.0


def test_the_neutral_set_is_tried_first_and_the_best_is_found():
    ideal = {"prune.early": 1.0, "drop.late": -1.5}
    distance = lambda m: sum((m.logs[knob] - wanted) ** 2 for knob, wanted in ideal.items())
    found = search_multipliers(tuple(ideal), distance, seconds_left=lambda: 1.0, trials=60)
    assert set(found[0].multipliers.logs.values()) == {0.0}
    assert min(trial.value for trial in found) < 0.3 * found[0].value


def test_no_trial_begins_without_time_and_a_search_that_brings_nothing_ends():
    assert search_multipliers(("prune.early",), lambda m: 0.0, seconds_left=lambda: 0.0) == ()
    assert len(search_multipliers(("prune.early",), lambda m: 1.0, seconds_left=lambda: 1.0, trials=99)) < 20


def test_one_seed_gives_one_way():
    value = lambda m: abs(m.logs["drop.late"])
    runs = [
        search_multipliers(("drop.late",), value, seconds_left=lambda: 1.0, trials=12, seed=3)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
