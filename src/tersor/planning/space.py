"""Everything that can be done to one network: its units, their levels and harms, and the designs they span."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from tersor.planning.allocate import allocate, allocate_within, relaxed_harm
from tersor.planning.anatomy import Anatomy, Layer, Left
from tersor.planning.options import Menu, Option

#: The kinds of units.
CUT, RANK, DROP = "prune", "factorize", "drop"

#: For each unit of a space the position of its level; 0 changes nothing.
Design: TypeAlias = tuple[int, ...]
#: What a design costs.
Price: TypeAlias = Callable[[Design], float]


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that can be made smaller on its own.

    Attributes:
        kind: `prune` (a group, or groups tied to it), `factorize` (a layer) or `drop` (a block).
        name: of the group, layer or block.
        levels: what can be left of it, from all to least: units kept, ranks (0: whole), or 1 and 0.
        harms: expected change of the outputs at each level, rising from 0.
        members: for `prune` the groups cut together, with the units of each for one of the levels' units.
        stage: where in the network it is, from 0 (input) to 1 (output).
    """

    kind: str
    name: str
    levels: tuple[int, ...]
    harms: tuple[float, ...]
    members: tuple[tuple[str, int], ...] = ()
    stage: float = 0.0

    def scaled(self, factor: float) -> "Unit":
        """Return the unit with its harms multiplied."""
        return replace(self, harms=tuple(harm * factor for harm in self.harms))


@dataclass(frozen=True)
class Space:
    """The designs of one network.

    Attributes:
        anatomy: its layers.
        units: what can be made smaller.
    """

    anatomy: Anatomy
    units: tuple[Unit, ...]

    @property
    def origin(self) -> Design:
        """The design that changes nothing."""
        return (0,) * len(self.units)

    @property
    def least(self) -> Design:
        """The design that leaves least of every unit."""
        return tuple(len(unit.levels) - 1 for unit in self.units)

    def only(self, kinds: Iterable[str]) -> "Space":
        """Return the space of the units of some kinds."""
        wanted = set(kinds)
        return replace(self, units=tuple(unit for unit in self.units if unit.kind in wanted))

    def weighed(self, weight: Callable[[Unit], float]) -> "Space":
        """Return the space with the harms of each unit multiplied by its weight."""
        return replace(self, units=tuple(unit.scaled(weight(unit)) for unit in self.units))

    def left(self, design: Design) -> Left:
        """Return what a design leaves of each group, layer and block."""
        kept: dict[str, int] = {}
        ranks: dict[str, int] = {}
        dropped: set[str] = set()
        for unit, place in zip(self.units, design, strict=True):
            if place and unit.kind == CUT:
                kept |= {name: times * unit.levels[place] for name, times in unit.members}
            elif place and unit.kind == RANK:
                ranks[unit.name] = unit.levels[place]
            elif place:
                dropped.add(unit.name)
        return Left(kept, ranks, frozenset(dropped))

    def effective(self, design: Design) -> Design:
        """Return the design without what is done to units of which a dropped block leaves nothing."""
        gone = {
            unit.name for unit, place in zip(self.units, design, strict=True) if unit.kind == DROP and place
        }
        if not gone:
            return design
        return tuple(
            0 if hidden & gone else place for place, hidden in zip(design, self._hidden_by, strict=True)
        )

    def harm(self, design: Design) -> float:
        """Return the expected change of the outputs."""
        return sum(
            unit.harms[place] for unit, place in zip(self.units, self.effective(design), strict=True) if place
        )

    @cached_property
    def _hidden_by(self) -> tuple[frozenset[str], ...]:
        """For each unit the blocks that hold all layers it changes."""
        blocks = [unit.name for unit in self.units if unit.kind == DROP]
        return tuple(self._holders(unit, blocks) for unit in self.units)

    def _holders(self, unit: Unit, blocks: Sequence[str]) -> frozenset[str]:
        changed = [self.anatomy.layers[index] for index in self.touched_by(unit)]
        return frozenset(
            block
            for block in blocks
            if changed and block != unit.name and all(layer.inside(block) for layer in changed)
        )

    def touched_by(self, unit: Unit) -> tuple[int, ...]:
        """Return the positions of the layers whose work depends on a unit."""
        return tuple(index for index, layer in enumerate(self.anatomy.layers) if _changes(unit, layer))

    def menus(self, design: Design, *prices: Price) -> tuple[Menu, ...]:
        """Return the menu of each unit around `design`: what changing that one unit adds to the prices of the whole."""
        design = self.effective(design)
        now, found = [price(design) for price in prices], []
        for index, unit in enumerate(self.units):
            options = []
            for place, harm in enumerate(unit.harms):
                made = (*design[:index], place, *design[index + 1 :])
                added = tuple(price(made) - cost for price, cost in zip(prices, now, strict=True))
                options.append(Option(place, added, harm))
            found.append(Menu(f"{unit.kind} {unit.name}", tuple(options)))
        return tuple(found)


def _changes(unit: Unit, layer: Layer) -> bool:
    if unit.kind == CUT:
        return any(name in layer.groups for name, _ in unit.members)
    return layer.name == unit.name if unit.kind == RANK else layer.inside(unit.name)


def levels_of(size: int, *, floor: float = 0.1, most: int = 12) -> tuple[int, ...]:
    """Return how many units of a group may be kept: all of them, then falling multiples that kernels like.

    Example:
        >>> levels_of(48), levels_of(16), levels_of(5)
        ((48, 40, 32, 24, 16, 8), (16, 12, 8, 4), (5, 4, 3, 2, 1))
    """
    step = 8 if size >= 48 else 4 if size >= 16 else 1
    step *= max(1, -(-size // (step * most)))
    least = max(1, round(floor * size))
    lower = range((size - 1) // step * step, 0, -step)
    return (size, *(count for count in lower if count >= min(least, step)))


def falling(scores: Sequence[float], levels: Sequence[int]) -> tuple[float, ...]:
    """Return the summed score of the units that go at each level, the lowest going first.

    Example:
        >>> falling([3.0, 1.0, 2.0], (3, 2, 1))
        (0.0, 1.0, 3.0)
    """
    ordered = sorted(scores)
    return tuple(float(sum(ordered[: len(ordered) - level])) for level in levels)


@dataclass(frozen=True, slots=True)
class Point:
    """A design with what it costs and the harm it does."""

    design: Design
    cost: float
    harm: float


def walk(space: Space, price: Price, target: float, *, start: Design | None = None) -> Point:
    r"""Return a design within `target`, by steps of least harm added for cost saved.

    Greedy over all lower levels of all units, $\min \Delta h / \Delta c$, with the true cost of the whole at each
    step: costs of coupled layers multiply, so no table of options holds for the whole way. With harms and costs
    that add up it walks the convex hulls, as `tersor.planning.allocate.sweep`.

    Args:
        space: what can be done.
        price: cost of a design.
        target: cost to come down to; the last design is returned where it cannot be reached.
        start: where to begin.
    """
    design = start or space.origin
    cost, harm = price(design), space.harm(design)
    while cost > target:
        step = _best_step(space, price, design, cost, harm)
        if step is None:
            break
        design, cost, harm = step.design, step.cost, step.harm
    return Point(design, cost, harm)


def _best_step(space: Space, price: Price, design: Design, cost: float, harm: float) -> Point | None:
    best: Point | None = None
    best_rate = float("inf")
    for index, unit in enumerate(space.units):
        for place in range(design[index] + 1, len(unit.levels)):
            made = (*design[:index], place, *design[index + 1 :])
            saved = cost - price(made)
            if saved <= 1e-9 * cost:
                continue
            added = space.harm(made) - harm
            rate = added / saved if added > 0 else added * saved
            if rate < best_rate:
                best, best_rate = Point(made, cost - saved, harm + added), rate
    return best


def cheapest(space: Space, price: Price) -> Point:
    """Return about the cheapest design: all at the least, then each unit in turn at its cheapest level.

    The least of everything need not be the cheapest: two factors of a small layer can take longer than the layer.
    """
    design = space.least
    for index, unit in enumerate(space.units):
        options = [(*design[:index], place, *design[index + 1 :]) for place in range(len(unit.levels))]
        design = min(reversed(options), key=price)
    design = space.effective(design)
    return Point(design, price(design), space.harm(design))


def polish(space: Space, price: Price, point: Point, target: float, *, rounds: int = 4) -> Point:
    """Return a design within `target` that does no more harm than `point`, by exact knapsacks around it.

    Each takes the menus around the best design so far, solves them by `allocate`, and is kept only if its true cost
    holds and its harm is less.
    """
    best = point
    for _ in range(rounds):
        menus = space.menus(best.design, price)
        if not menus or best.cost > target:
            break
        found = allocate(menus, max(target - best.cost, 0.0))
        design = space.effective(tuple(int(found.levels[menu.unit]) for menu in menus))
        made = walk(space, price, target, start=design)
        if made.cost > target or made.harm >= best.harm * (1 - 1e-9):
            break
        best = made
    return best


def gap(space: Space, price: Price, point: Point) -> float:
    """Return how much more harm `point` does than any design could at its cost, relative, with the costs around it.

    A bound for the knapsack as it looks from `point`; costs further away may differ.
    """
    bound = relaxed_harm(space.menus(point.design, price), 0.0)
    return max(0.0, point.harm - bound) / point.harm if point.harm > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """A price and the most that it may come to."""

    price: Price
    most: float

    def holds(self, design: Design) -> bool:
        """Whether a design is within the budget."""
        return self.price(design) <= self.most


def settle(space: Space, budgets: Sequence[Budget]) -> Point:
    """Return a design of little harm within all budgets, as far as they can be met; its cost is that of the first.

    One budget after the other is walked down to. Exact knapsacks around the design then spare harm: by dynamic
    programming for one budget, by branch and bound for several.
    """
    first, design = budgets[0], space.origin
    for budget in budgets:
        design = walk(space, budget.price, budget.most, start=design).design
    point = Point(design, first.price(design), space.harm(design))
    if len(budgets) == 1:
        return polish(space, first.price, point, first.most)
    if not all(budget.holds(design) for budget in budgets):
        return point
    menus = space.menus(design, *(budget.price for budget in budgets))
    found = allocate_within(menus, [budget.most - budget.price(design) for budget in budgets])
    made = space.effective(tuple(int(found.levels[menu.unit]) for menu in menus))
    spares = space.harm(made) < point.harm and all(budget.holds(made) for budget in budgets)
    return Point(made, first.price(made), space.harm(made)) if spares else point


def weights_by(kinds: Mapping[str, float]) -> Callable[[Unit], float]:
    """Return the weight of a unit as that of its kind; one where none is given."""
    return lambda unit: kinds.get(unit.kind, 1.0)
