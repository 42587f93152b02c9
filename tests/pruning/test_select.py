"""Selection: what every plan must hold, whatever the scores."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tersor.errors import ArgumentError, PlanError
from tersor.planning.plan import Plan
from tersor.pruning.select import keep_highest, lowest_cost, prune_global, prune_to_budget, prune_uniform

groups = st.dictionaries(
    st.sampled_from("abcd"),
    st.lists(st.floats(0, 1e3), min_size=1, max_size=40).map(torch.tensor),
    min_size=1,
)
ratios = st.floats(0, 0.99)
floors = st.floats(0, 0.9)
multiples = st.integers(1, 9)


def kept(plan: Plan, scores: dict) -> dict[str, int]:
    return {name: len(values) for name, values in scores.items()} | {
        cut.group: len(cut.keep) for cut in plan.edits
    }


def area(counts: dict[str, int]) -> float:
    """A cost that is a product of neighbours, as multiply-adds are."""
    sizes = [counts[name] for name in sorted(counts)]
    return float(sum(a * b for a, b in zip(sizes, [3, *sizes], strict=False)))


def holds_its_limits(plan, scores, keep_at_least, multiple_of):
    for cut in plan.edits:
        size = len(scores[cut.group])
        assert list(cut.keep) == sorted(set(cut.keep))
        assert max(1, math.ceil(keep_at_least * size - 1e-9)) <= len(cut.keep) < size
        assert len(cut.keep) % multiple_of == 0


def keeps_the_best(plan, scores):
    for cut in plan.edits:
        values = scores[cut.group]
        gone = [values[i].item() for i in range(len(values)) if i not in cut.keep]
        assert max(gone) <= min(values[i].item() for i in cut.keep)


@given(groups, ratios, floors, multiples)
def test_uniform_and_global_plans_hold_their_limits(scores, ratio, keep_at_least, multiple_of):
    for select in (prune_uniform, prune_global):
        plan = select(scores, ratio=ratio, keep_at_least=keep_at_least, multiple_of=multiple_of)
        holds_its_limits(plan, scores, keep_at_least, multiple_of)
        keeps_the_best(plan, scores)


@given(groups, st.floats(0.05, 1), floors, multiples, st.booleans())
def test_a_budget_holds_or_is_refused_with_a_reachable_one(
    scores, share, keep_at_least, multiple_of, per_cost
):
    def select(budget):
        return prune_to_budget(
            scores,
            cost=area,
            budget=budget,
            per_cost=per_cost,
            keep_at_least=keep_at_least,
            multiple_of=multiple_of,
        )

    budget = share * area(kept(Plan(), scores))
    try:
        plan = select(budget)
    except PlanError as refusal:
        lowest = float(str(refusal).split("below ")[1].split(" ")[0])
        assert lowest > budget
        plan, budget = select(lowest * (1 + 1e-5)), lowest * (1 + 1e-5)
    assert area(kept(plan, scores)) <= budget
    holds_its_limits(plan, scores, keep_at_least, multiple_of)
    keeps_the_best(plan, scores)


@given(groups, ratios, multiples)
def test_uniform_removes_the_ratio_to_half_a_multiple(scores, ratio, multiple_of):
    plan = prune_uniform(scores, ratio=ratio, keep_at_least=0, multiple_of=multiple_of)
    for name, count in kept(plan, scores).items():
        size = len(scores[name])
        if multiple_of <= (1 - ratio) * size <= size - multiple_of:
            assert abs(count - (1 - ratio) * size) <= multiple_of / 2 + 1e-9


def test_global_ranks_all_groups_together_and_spares_the_floor():
    scores = {"low": torch.arange(10.0), "high": torch.arange(10.0) + 100}
    counts = kept(prune_global(scores, ratio=0.5), scores)
    assert counts == {"low": 1, "high": 9}


def test_scopes_are_ranked_apart():
    scores = {"low": torch.arange(10.0), "high": torch.arange(10.0) + 100}
    counts = kept(prune_global(scores, ratio=0.5, scopes={"low": "a", "high": "b"}), scores)
    assert counts == {"low": 5, "high": 5}


def test_a_budget_prefers_the_expensive_group_at_equal_scores():
    scores = {"cheap": torch.ones(10), "dear": torch.ones(10)}
    plan = prune_to_budget(scores, cost=lambda k: k["cheap"] + 9.0 * k["dear"], budget=60)
    assert kept(plan, scores) == {"cheap": 10, "dear": 5}
    by_score = prune_to_budget(scores, cost=lambda k: k["cheap"] + 9.0 * k["dear"], budget=60, per_cost=False)
    assert kept(by_score, scores)["cheap"] < 10


def test_the_greedy_budget_is_optimal_for_additive_costs():
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(5, generator=generator) for name in "abc"}
    prices = {"a": 1.0, "b": 1.0, "c": 1.0}
    cost = lambda k: sum(prices[name] * count for name, count in k.items())
    plan = prune_to_budget(scores, cost=cost, budget=9, keep_at_least=0.2)
    lost = sum(scores[c.group].sum().item() - scores[c.group][list(c.keep)].sum().item() for c in plan.edits)
    falls = {name: values.sort().values for name, values in scores.items()}
    best = min(
        sum(falls[name][: 5 - k].sum().item() for name, k in zip("abc", ks, strict=True))
        for ks in torch.cartesian_prod(*[torch.arange(1, 6)] * 3).tolist()
        if sum(ks) <= 9
    )
    assert lost == pytest.approx(best)


def greedy(scores, cost, budget):
    """Recompute every priority at every step; lowest first, by name at a tie; then bring back what fits."""
    falls = {name: values.sort().values.double() for name, values in scores.items()}
    count = {name: len(values) for name, values in scores.items()}
    while cost(count) > budget:
        options = []
        for name in sorted(count):
            if count[name] > 1:
                saved = cost(count) - cost({**count, name: count[name] - 1})
                options.append((falls[name][len(falls[name]) - count[name]].item() / saved, name))
        count[min(options)[1]] -= 1
    while back := [
        (falls[name][len(falls[name]) - kept - 1].item(), name)
        for name, kept in count.items()
        if kept < len(falls[name]) and cost({**count, name: kept + 1}) <= budget
    ]:
        count[max(back)[1]] += 1
    return count


@pytest.mark.parametrize("seed", range(5))
def test_the_budget_follows_the_greedy_path_where_costs_multiply(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {
        name: torch.rand(size, generator=generator)
        for name, size in [("a", 12), ("b", 20), ("c", 6), ("d", 15)]
    }
    budget = 0.3 * area(kept(Plan(), scores))
    plan = prune_to_budget(scores, cost=area, budget=budget, keep_at_least=0)
    assert kept(plan, scores) == greedy(scores, area, budget)


def test_steps_of_many_units_leave_no_room_for_one_more():
    scores = {"wide": torch.rand(1000, generator=torch.Generator().manual_seed(0))}
    counts = kept(prune_to_budget(scores, cost=lambda k: k["wide"], budget=501), scores)
    assert counts == {"wide": 501}


def test_the_lowest_cost_is_the_lowest_budget_that_is_met():
    scores = {name: torch.rand(n) for name, n in [("a", 12), ("b", 20), ("c", 7)]}
    least = lowest_cost(scores, cost=area, together=[("a", "b")])
    assert (
        area(kept(prune_to_budget(scores, cost=area, budget=least, together=[("a", "b")]), scores)) == least
    )
    with pytest.raises(PlanError, match="cannot go below"):
        prune_to_budget(scores, cost=area, budget=least * 0.999, together=[("a", "b")])


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
def test_groups_that_go_together_keep_equal_counts(ratio):
    generator = torch.Generator().manual_seed(3)
    scores = {name: torch.rand(10, generator=generator) * (1 + 9 * (name == "b")) for name in "abcd"}
    budget = (1 - ratio) * area(kept(Plan(), scores))
    for plan in (
        prune_global(scores, ratio=ratio, together=[("a", "b")]),
        prune_to_budget(scores, cost=area, budget=budget, together=[("a", "b")]),
    ):
        counts = kept(plan, scores)
        assert counts["a"] == counts["b"]
        assert len(set(counts.values())) > 1
        keeps_the_best(plan, scores)
    assert area(counts) <= budget


def test_a_group_twice_as_large_loses_twice_as_many():
    scores = {"a": torch.arange(8.0), "b": torch.arange(4.0), "c": torch.full((8,), 2.5)}
    counts = kept(prune_global(scores, ratio=0.3, together=[("b", "a")]), scores)
    assert counts["a"] == 2 * counts["b"] < 8


def test_a_group_tied_to_one_without_scores_stays_whole():
    scores = {"a": torch.rand(4), "b": torch.rand(4)}
    plan = prune_to_budget(
        scores, cost=lambda k: k["a"] + 5.0 * k["b"], budget=22, together=[("b", "elsewhere")]
    )
    assert {edit.group for edit in plan.edits} == {"a"}


def test_a_cost_that_no_cut_lowers_is_refused_with_the_reason():
    with pytest.raises(PlanError, match="cannot go below 7"):
        prune_to_budget({"a": torch.ones(3)}, cost=lambda k: 7.0, budget=5)


def test_nothing_is_cut_when_nothing_is_asked():
    scores = {"a": torch.ones(3), "one": torch.ones(1)}
    assert prune_uniform(scores, ratio=0) == prune_global(scores, ratio=0) == Plan()
    assert prune_to_budget(scores, cost=area, budget=area(kept(Plan(), scores))) == Plan()


def test_a_group_of_one_unit_is_kept():
    assert prune_uniform({"one": torch.ones(1)}, ratio=0.9, keep_at_least=0) == Plan()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: prune_uniform(s, ratio=50), "If you meant 50 per cent, pass 0.5"),
        (lambda s: prune_global(s, ratio=1.0), "fraction"),
        (lambda s: prune_uniform({}, ratio=0.5), "no scores"),
        (lambda s: prune_uniform(s, ratio=0.5, multiple_of=0), "at least 1"),
        (lambda s: prune_uniform(s, ratio=0.5, keep_at_least=2), "keep_at_least"),
        (lambda s: prune_global(s, ratio=0.5, scopes={"b": "x"}), "names no scope"),
        (lambda s: prune_uniform({"a": torch.tensor([1.0, float("nan")])}, ratio=0.5), "not finite"),
    ],
)
def test_bad_requests_say_what_would_do(make, message):
    with pytest.raises(ArgumentError, match=message):
        make({"a": torch.ones(4)})


def test_equal_scores_keep_the_first_units():
    assert keep_highest(torch.ones(4), 2) == (0, 1)
