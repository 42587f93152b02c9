r"""One option for each unit within a budget: the multiple-choice knapsack problem.

$$\min \sum_u h_{u, o(u)} \quad \text{subject to} \quad \sum_u c_{u, o(u)} \le B$$
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tersor.errors import PlanError
from tersor.planning.options import Menu, hull, undominated

#: Costs are rounded up to this many steps of the budget by the dynamic programme.
BUCKETS = 4000
#: More buckets than any budget has.
_NEVER = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Allocation:
    """A choice of one option for each unit.

    Attributes:
        levels: the level taken, by unit.
        cost: sum of the costs, one number for each budget.
        harm: sum of the harms.
        bound: no choice within the budget does less harm than this.
    """

    levels: Mapping[str, int | str]
    cost: tuple[float, ...]
    harm: float
    bound: float

    @property
    def gap(self) -> float:
        """How much more harm than the bound is done, relative to it; 0 is proved best."""
        excess = max(0.0, self.harm - self.bound)
        return excess / max(abs(self.bound), 1e-12) if excess > 1e-12 else 0.0


def sweep(menus: Sequence[Menu]) -> tuple[Allocation, ...]:
    """Return the whole front of the first cost, from the least harm to the least cost.

    Steps along the convex hulls of all units in the order of harm added for cost saved. Each point is the best
    choice at its own cost; the front is found in O(n log n) for n options.

    Example:
        >>> from tersor.planning.options import Option
        >>> menus = [Menu("a", (Option(2, (2.0,), 0.0), Option(1, (1.0,), 3.0)))]
        >>> [(point.cost, point.harm) for point in sweep(menus)]
        [((2.0,), 0.0), ((1.0,), 3.0)]

    Source:
        Sinha and Zoltners, The multiple-choice knapsack problem, Operations Research 27(3), 1979.
    """
    paths = [hull(menu.options) for menu in menus]
    places = [0] * len(menus)
    queue = [step for index in range(len(menus)) if (step := _step(menus[index], paths[index], 0, index))]
    heapq.heapify(queue)
    points = [_allocation(menus, [path[0] for path in paths])]
    while queue:
        _, index = heapq.heappop(queue)
        places[index] += 1
        points.append(_allocation(menus, [path[place] for path, place in zip(paths, places, strict=True)]))
        if step := _step(menus[index], paths[index], places[index], index):
            heapq.heappush(queue, step)
    return tuple(points)


def _step(menu: Menu, path: Sequence[int], place: int, index: int) -> tuple[float, int] | None:
    if place + 1 >= len(path):
        return None
    now, then = menu.options[path[place]], menu.options[path[place + 1]]
    return (then.harm - now.harm) / (now.cost[0] - then.cost[0]), index


def _allocation(menus: Sequence[Menu], taken: Sequence[int], bound: float | None = None) -> Allocation:
    chosen = [menu.options[index] for menu, index in zip(menus, taken, strict=True)]
    harm = float(sum(option.harm for option in chosen))
    cost = tuple(float(sum(values)) for values in zip(*(option.cost for option in chosen), strict=True))
    levels = {menu.unit: option.level for menu, option in zip(menus, chosen, strict=True)}
    return Allocation(levels, cost, harm, harm if bound is None else min(bound, harm))


def relaxed_harm(menus: Sequence[Menu], budget: float) -> float:
    """Return a lower bound on the harm within `budget` of the first cost: options may be mixed (linear relaxation)."""
    points = sweep(menus)
    for dear, cheap in pairwise(points):
        if cheap.cost[0] <= budget < dear.cost[0]:
            part = (dear.cost[0] - budget) / (dear.cost[0] - cheap.cost[0])
            return dear.harm + part * (cheap.harm - dear.harm)
    return points[0].harm if budget >= points[0].cost[0] else float("inf")


def allocate(menus: Sequence[Menu], budget: float, *, buckets: int = BUCKETS) -> Allocation:
    """Return the choice of least harm whose first cost is within `budget`, by dynamic programming.

    Exact for whole costs, large ones and others up to their rounding to `buckets` steps; always within the budget,
    and never worse than the last point of `sweep` within it. `gap` compares with the linear relaxation.

    Args:
        menus: the options of each unit; only the first cost counts.
        budget: largest sum of costs.
        buckets: steps between the least possible cost and the budget.

    Raises:
        PlanError: if the budget cannot be met; the message has the least cost that can.

    Example:
        >>> from tersor.planning.options import Option
        >>> menu = lambda name, harm: Menu(name, (Option("keep", (2.0,), 0.0), Option("drop", (0.0,), harm)))
        >>> allocate([menu("a", 1.0), menu("b", 3.0)], budget=2.0).levels
        {'a': 'drop', 'b': 'keep'}

    Source:
        Dudzinski and Walukiewicz, Exact methods for the knapsack problem, EJOR 28(1), 1987, section 4; used for
        layers by Frantar and Alistarh, SPDY, ICML 2022.
    """
    menus = [undominated(menu) for menu in menus]
    least = [min(option.cost[0] for option in menu.options) for menu in menus]
    room = budget - sum(least)
    if room < -1e-12 * max(1.0, abs(budget)):
        raise PlanError(
            f"The budget of {budget:.6g} cannot be met: the least possible cost is {sum(least):.6g}."
        )
    step, buckets = _grid(menus, least, max(room, 0.0), buckets)
    taken = _programme(menus, least, step, buckets)
    bound = relaxed_harm(menus, budget)
    exact = _allocation(menus, taken, bound)
    swept = [point for point in sweep(menus) if point.cost[0] <= budget]
    best = min([exact, *swept], key=lambda point: (point.harm, point.cost[0]))
    return Allocation(best.levels, best.cost, best.harm, min(bound, best.harm))


def _grid(menus: Sequence[Menu], least: Sequence[float], room: float, buckets: int) -> tuple[float, int]:
    """Return the width of a bucket and their number: without any rounding for few multiples of a whole number."""
    extra = [o.cost[0] - floor for menu, floor in zip(menus, least, strict=True) for o in menu.options]
    if all(cost.is_integer() for cost in map(float, extra)):
        unit = math.gcd(*map(int, extra)) or 1
        if room <= buckets * unit:
            return float(unit), int(room / unit + 1e-9)
    return room / buckets, buckets


def _programme(menus: Sequence[Menu], least: Sequence[float], step: float, buckets: int) -> list[int]:
    """Return the position of the option taken of each menu."""
    harm = np.zeros(buckets + 1)
    choices: list[np.ndarray] = []
    for menu, floor in zip(menus, least, strict=True):
        table = np.full((len(menu.options), buckets + 1), np.inf)
        for row, option in enumerate(menu.options):
            width = _buckets_of(option.cost[0] - floor, step)
            if width <= buckets:
                table[row, width:] = harm[: buckets + 1 - width] + option.harm
        choices.append(table.argmin(0))
        harm = table.min(0)
    taken, left = [0] * len(menus), buckets
    for index in range(len(menus) - 1, -1, -1):
        taken[index] = int(choices[index][left])
        left -= _buckets_of(menus[index].options[taken[index]].cost[0] - least[index], step)
    return taken


def _buckets_of(cost: float, step: float) -> int:
    """Return the buckets that a cost fills, rounded up, so that the budget holds."""
    if cost <= 0:
        return 0
    return int(np.ceil(min(cost / step, _NEVER) - 1e-9)) if step > 0 else _NEVER


def allocate_within(menus: Sequence[Menu], budgets: Sequence[float], *, seconds: float = 10.0) -> Allocation:
    """Return the choice of least harm that keeps every budget, by HiGHS' branch and bound.

    Args:
        menus: the options of each unit, with one cost for each budget.
        budgets: largest sum of each cost.
        seconds: time limit; `gap` tells how far the answer may then be from the best.

    Raises:
        PlanError: if no choice keeps all budgets.

    Example:
        >>> from tersor.planning.options import Option
        >>> menu = Menu("fc", (Option("float", (4.0, 4.0), 0.0), Option("int8", (1.0, 1.0), 0.5)))
        >>> allocate_within([menu], (8.0, 2.0)).levels
        {'fc': 'int8'}

    Source:
        Huangfu and Hall, Parallelizing the dual revised simplex method, Mathematical Programming Computation 10, 2018.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    menus = [undominated(menu) for menu in menus]
    options = [option for menu in menus for option in menu.options]
    owner = np.repeat(np.arange(len(menus)), [len(menu.options) for menu in menus])
    one_each = (owner[None, :] == np.arange(len(menus))[:, None]).astype(float)
    costs = np.array([option.cost for option in options]).T
    scale = np.maximum(np.abs(costs).max(1), 1e-30)
    solved = milp(
        np.array([option.harm for option in options]),
        constraints=[
            LinearConstraint(one_each, 1.0, 1.0),
            LinearConstraint(costs / scale[:, None], -np.inf, np.asarray(budgets, float) / scale),
        ],
        integrality=np.ones(len(options)),
        bounds=Bounds(0.0, 1.0),
        options={"time_limit": seconds},
    )
    if solved.x is None:
        raise PlanError(f"No choice keeps all budgets {tuple(budgets)}. Raise one of them.")
    picked = np.flatnonzero(solved.x > 0.5)
    first = np.searchsorted(owner, np.arange(len(menus)))
    taken = [int(index - first[owner[index]]) for index in picked]
    bound = solved.mip_dual_bound
    return _allocation(menus, taken, float(bound) if bound is not None else float("-inf"))
