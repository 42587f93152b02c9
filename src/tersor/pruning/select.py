"""From scores to a Plan: which units of which group go. Pure data; no model is read."""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tersor._check import fraction
from tersor.errors import ArgumentError, PlanError
from tersor.planning.plan import Cut, Plan
from tersor.pruning.score import Scores

#: From units kept in each group to a number: multiply-adds, parameters, predicted seconds, ...
CostOf = Callable[[Mapping[str, int]], float]

#: A group is cut in at most this many steps when a budget is approached.
_STEPS = 64


def prune_uniform(scores: Scores, *, ratio: float, keep_at_least: float = 0.1, multiple_of: int = 1) -> Plan:
    """Plan to cut the lowest-scored `ratio` of the units of every group.

    Args:
        scores: score of each unit of each group.
        ratio: fraction removed, in [0, 1).
        keep_at_least: fraction of each group that stays whatever its scores; never less than one unit.
        multiple_of: kept counts are rounded to the nearest multiple, and never below one multiple.

    Raises:
        ArgumentError: if `ratio` or `keep_at_least` is no fraction, `multiple_of < 1`, or there are no scores.

    Example:
        >>> print(prune_uniform({"conv1": torch.tensor([3.0, 1.0, 2.0, 4.0])}, ratio=0.5))
        Cut conv1: keep 2 units
    """
    limits = _Limits(scores, keep_at_least, multiple_of)
    ratio = fraction("ratio", ratio)
    return limits.plan(
        {name: limits.near(name, (1 - ratio) * len(values)) for name, values in scores.items()}
    )


def prune_global(
    scores: Scores,
    *,
    ratio: float,
    scopes: Mapping[str, str] | None = None,
    together: Sequence[Sequence[str]] = (),
    keep_at_least: float = 0.1,
    multiple_of: int = 1,
) -> Plan:
    """Plan to cut the lowest-scored `ratio` of all units together.

    Args:
        scores: score of each unit of each group, comparable between groups.
        ratio: fraction of all units removed, in [0, 1).
        scopes: rank only groups of equal scope together, each scope losing `ratio` of its units;
            `shapes(evidence)` gives isomorphic pruning.
        together: sets of groups that keep equal shares of their units, from `ties(graph)`.
        keep_at_least: fraction of each group that stays whatever its scores; never less than one unit.
            Without it whole layers vanish first.
        multiple_of: kept counts are rounded to the nearest multiple, and never below one multiple.

    Raises:
        ArgumentError: as `prune_uniform`, or if a group has no scope.

    Example:
        >>> scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
        >>> print(prune_global(scores, ratio=0.25))
        Cut a: keep 1 units
    """
    limits = _Limits(scores, keep_at_least, multiple_of, together)
    ratio = fraction("ratio", ratio)
    if scopes is not None and set(scores) - set(scopes):
        raise ArgumentError(
            f"`scopes` names no scope for {sorted(set(scores) - set(scopes))}; it must name all groups."
        )
    kept: dict[str, float] = {}
    for scope in sorted({scopes[name] for name in limits.scores} if scopes else {""}):
        names = [name for name in limits.scores if scopes is None or scopes[name] == scope]
        kept |= _ranked({name: limits.scores[name] for name in names}, ratio, limits)
    return limits.plan({name: limits.near(name, count) for name, count in kept.items()})


def _ranked(scores: Scores, ratio: float, limits: "_Limits") -> dict[str, float]:
    """Return how many units of each group stay when the lowest go first and floors hold."""
    protected = {name: limits.floor(name) for name in scores}
    free = sorted(
        (value, name)
        for name, values in scores.items()
        for value in values.sort(stable=True).values[: len(values) - protected[name]].tolist()
    )
    gone = round(ratio * sum(len(values) for values in scores.values()))
    kept = {name: float(len(values)) for name, values in scores.items()}
    for _, name in free[:gone]:
        kept[name] -= 1
    return kept


def prune_to_budget(
    scores: Scores,
    *,
    cost: CostOf,
    budget: float,
    per_cost: bool = True,
    together: Sequence[Sequence[str]] = (),
    keep_at_least: float = 0.1,
    multiple_of: int = 1,
) -> Plan:
    r"""Plan the cuts that bring `cost` to at most `budget` while the least score is lost.

    Greedy: each step cuts the few units with the least $\sum_u s_u / \Delta c$, where
    $\Delta c$ is what the cost falls by at the counts reached so far, until the budget
    holds. With scores in one unit for all groups (`Fisher`, `Taylor`) this is the Lagrangian rule for
    $\min \sum s$ subject to the budget. Scores that only compare units of one group (`Magnitude`, `Lamp`
    and others) want `per_cost=False`.

    Args:
        scores: score of each unit of each group, comparable between groups.
        cost: from `{group: units kept}` to a number, falling when units go: `mac_cost(...)`,
            `parameter_cost(...)`, or any fitted model of a measured latency.
        budget: largest cost allowed, in the unit of `cost`; half of `cost({})` halves it.
        per_cost: weigh scores by what they cost; False ranks by the mean score alone.
        together: sets of groups that keep equal shares of their units, from `ties(graph)`.
        keep_at_least: fraction of each group that stays whatever its scores; never less than one unit.
        multiple_of: kept counts are multiples of this, where a group is not left whole.

    Raises:
        ArgumentError: as `prune_uniform`.
        PlanError: if the budget cannot be reached; the message has the lowest cost that can.

    Example:
        >>> scores = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0])}
        >>> print(prune_to_budget(scores, cost=lambda kept: 10.0 * kept["a"], budget=25))
        Cut a: keep 2 units
    """
    limits = _Limits(scores, keep_at_least, multiple_of, together)
    price = _Price(limits, cost, per_cost)
    kept = {name: len(values) for name, values in limits.scores.items()}
    now = price.of(kept)
    queue = [step for name in kept if (step := price.step(name, kept, now))]
    heapq.heapify(queue)
    while now > budget and queue:
        stale, name = heapq.heappop(queue)
        step = price.step(name, kept, now)
        if step is None:
            continue
        # A priority only rises while others are cut; take the step if it is still the lowest after an update.
        if step[0] > stale and queue and step[0] > queue[0][0]:
            heapq.heappush(queue, step)
            continue
        kept[name] = limits.below(name, kept[name])
        now = price.of(kept)
        heapq.heappush(queue, (step[0], name))
    if now > budget:
        raise PlanError(
            f"The cost cannot go below {now:.6g} (asked: {budget:.6g}) with keep_at_least={keep_at_least:g}. "
            "Raise the budget, lower `keep_at_least`, or combine pruning with other edits."
        )
    return limits.plan(_filled(kept, budget, limits, price))


def lowest_cost(
    scores: Scores, *, cost: CostOf, together: Sequence[Sequence[str]] = (), keep_at_least: float = 0.1
) -> float:
    """Return the lowest budget that `prune_to_budget` can reach.

    Example:
        >>> lowest_cost({"a": torch.ones(20)}, cost=lambda kept: 3.0 * kept["a"])
        6.0
    """
    limits = _Limits(scores, keep_at_least, 1, together)
    return _Price(limits, cost, per_cost=False).of({name: limits.floor(name) for name in limits.scores})


def _filled(kept: dict[str, int], budget: float, limits: "_Limits", price: "_Price") -> dict[str, int]:
    """Bring back, of the highest score first, what the budget still has room for after steps of many units."""
    cut = [(-limits.next(name, count), name) for name, count in kept.items() if count < limits.size(name)]
    heapq.heapify(cut)
    while cut:
        _, name = heapq.heappop(cut)
        more = {**kept, name: min(limits.size(name), kept[name] + limits.multiple)}
        if price.of(more) <= budget:
            kept = more
            if kept[name] < limits.size(name):
                heapq.heappush(cut, (-limits.next(name, kept[name]), name))
    return kept


class _Limits:
    """The counts that a group may be cut to, and the plan that keeps the best units.

    Groups that go together are one group here, under the first one's name: its units are the lowest of
    each, the second lowest of each, and so on; of a group that is k times larger, k at once.
    """

    def __init__(
        self, scores: Scores, keep_at_least: float, multiple_of: int, together: Sequence[Sequence[str]] = ()
    ) -> None:
        if not scores:
            raise ArgumentError("There are no scores to select by: no group of this model can be pruned.")
        if multiple_of < 1:
            raise ArgumentError(f"`multiple_of` must be at least 1, got {multiple_of!r}.")
        for name, values in scores.items():
            if not torch.isfinite(values).all():
                raise ArgumentError(
                    f"The scores of {name!r} are not finite; its weights or gradients may hold a NaN."
                )
        self.share = fraction("keep_at_least", keep_at_least)
        self.multiple = multiple_of
        self.own = {name: values.detach().double().cpu() for name, values in scores.items()}
        self.members = _members(self.own, together)
        self.scores = {name: self._merged(members) for name, members in self.members.items()}
        self.lost = {name: _falling_sums(values) for name, values in self.scores.items()}

    def _merged(self, members: tuple[str, ...]) -> Tensor:
        if len(members) == 1:
            return self.own[members[0]]
        size = math.gcd(*(len(self.own[member]) for member in members))
        return torch.stack(
            [self.own[member].sort().values.reshape(size, -1).sum(1) for member in members]
        ).sum(0)

    def floor(self, name: str) -> int:
        """Return the least count of a group."""
        size = len(self.scores[name])
        wanted = max(1, math.ceil(self.share * size - 1e-9))
        return min(size, math.ceil(wanted / self.multiple) * self.multiple)

    def size(self, name: str) -> int:
        """Return the number of units of a group."""
        return len(self.scores[name])

    def next(self, name: str, count: int) -> float:
        """Return the score of the best unit that is gone when `count` are left."""
        return self.lost[name][count] - self.lost[name][count + 1]

    def near(self, name: str, count: float) -> int:
        """Return the allowed count nearest to `count`."""
        size = len(self.scores[name])
        if count >= size:
            return size
        return min(size, max(self.floor(name), round(count / self.multiple) * self.multiple))

    def below(self, name: str, count: int) -> int:
        """Return the next lower allowed count, or `count` if there is none."""
        size = len(self.scores[name])
        stride = self.multiple * max(1, size // (_STEPS * self.multiple))
        return min(count, max(self.floor(name), (count - 1) // stride * stride))

    def plan(self, kept: Mapping[str, int]) -> Plan:
        """Return the plan that keeps the highest-scored units of each group."""
        cuts = (
            Cut(name, keep_highest(self.own[name], count))
            for name, count in self.counts(kept).items()
            if count < len(self.own[name])
        )
        return Plan(tuple(cuts))

    def counts(self, kept: Mapping[str, int]) -> dict[str, int]:
        """Return the counts of all groups, those that go together spelled out."""
        return {
            member: kept[name] * len(self.own[member]) // len(self.scores[name])
            for name, members in self.members.items()
            for member in members
        }


def _members(scores: Scores, together: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return for each group that leads, in the order of the scores, the groups that go with it.

    Groups without scores stay whole, and so do those tied to them.
    """
    tied = {name: tuple(members) for members in together for name in members}
    found: dict[str, tuple[str, ...]] = {}
    for name in scores:
        members = tied.get(name, (name,))
        if members[0] == name and all(member in scores for member in members):
            found[name] = members
    return found


class _Price:
    """What the next cut of a group loses and saves."""

    def __init__(self, limits: _Limits, cost: CostOf, per_cost: bool) -> None:
        self.limits, self.cost, self.per_cost = limits, cost, per_cost

    def of(self, kept: Mapping[str, int]) -> float:
        """Return the cost; groups that are not selected from keep all."""
        whole = {name: len(values) for name, values in self.limits.own.items()}
        return self.cost(whole | self.limits.counts(kept))

    def step(self, name: str, kept: Mapping[str, int], now: float) -> tuple[float, str] | None:
        """Return the priority of the next cut of a group, or None if it is at its floor."""
        target = self.limits.below(name, kept[name])
        if target == kept[name]:
            return None
        lost = self.limits.lost[name][target] - self.limits.lost[name][kept[name]]
        saved = now - self.of({**kept, name: target}) if self.per_cost else float(kept[name] - target)
        return (lost / saved if saved > 0 else math.inf, name)


def _falling_sums(values: Tensor) -> list[float]:
    """Return for each count of kept units the summed score of those that went."""
    gone = torch.cat([values.new_zeros(1), values.sort().values.cumsum(0)])
    return gone.flip(0).tolist()


def keep_highest(values: Tensor, count: int) -> tuple[int, ...]:
    """Return the indices of the `count` highest values, ascending; of equal ones the first stay.

    Example:
        >>> keep_highest(torch.tensor([0.5, 2.0, 1.0]), 2)
        (1, 2)
    """
    order = values.sort(stable=True, descending=True).indices[:count]
    return tuple(sorted(order.tolist()))
