import pytest
from hypothesis import given
from hypothesis import strategies as st

from tersor.errors import PlanError
from tersor.planning.compose import compose
from tersor.planning.plan import Cut, Drop, Factorize, Mask, Plan, Quantize, describe

names = st.text("abc.", min_size=1, max_size=4)
edits = st.one_of(
    st.builds(Cut, names, st.lists(st.integers(0, 9), unique=True).map(lambda k: tuple(sorted(k)))),
    st.builds(Quantize, names, st.integers(2, 8), st.sampled_from([0, 8, 16])),
    st.builds(Factorize, names, st.integers(1, 9)),
    st.builds(Drop, names),
    st.builds(Mask, names, st.just("2:4")),
)
plans = st.lists(edits, max_size=6).map(lambda e: Plan(tuple(e)))


@given(plans)
def test_a_plan_survives_json(plan):
    assert Plan.from_json(plan.to_json()) == plan


@given(plans, plans, plans)
def test_adding_plans_is_associative_and_keeps_order(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert (a + b).edits[: len(a)] == a.edits


@given(plans, plans)
def test_a_difference_names_what_only_one_side_has(a, b):
    mine, theirs = a.diff(b)
    assert set(mine) == set(a.edits) - set(b.edits)
    assert set(theirs) == set(b.edits) - set(a.edits)


@given(edits)
def test_every_edit_is_described_by_its_name(edit):
    assert describe(edit).split(" ")[0].rstrip(":") == type(edit).__name__


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a plan"),
        ("{}", "list of edits"),
        ('[{"edit": "Melt"}]', "must be one of Cut"),
        ('[{"edit": "Cut", "group": "a", "keep": [0], "why": 1}]', "no field"),
        ('[{"edit": "Cut", "group": "a"}]', "Not a complete Cut"),
        ("[3]", "Not an edit"),
    ],
)
def test_text_that_is_not_a_plan_is_refused_with_the_reason(text, message):
    with pytest.raises(PlanError, match=message):
        Plan.from_json(text)


@given(st.data())
def test_composed_cuts_select_what_two_steps_select(data):
    units = list(range(10))
    first = tuple(sorted(data.draw(st.sets(st.sampled_from(units), min_size=1))))
    second = tuple(sorted(data.draw(st.sets(st.sampled_from(range(len(first))), min_size=1))))
    whole = compose(Plan((Cut("g", first),)), Plan((Cut("g", second),)))
    step = [units[i] for i in first]
    assert [units[i] for i in whole.edits[0].keep] == [step[i] for i in second]


def test_composing_keeps_other_edits_and_new_groups():
    first = Plan((Cut("a", (0, 1)), Factorize("fc", 3)))
    whole = compose(first, Plan((Cut("b", (1,)), Quantize("fc"))))
    assert whole.edits == (Cut("a", (0, 1)), Factorize("fc", 3), Cut("b", (1,)), Quantize("fc"))


def test_composing_with_a_plan_for_another_model_is_refused():
    with pytest.raises(PlanError, match="keeps unit 5 of g"):
        compose(Plan((Cut("g", (0, 1)),)), Plan((Cut("g", (5,)),)))
