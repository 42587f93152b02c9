"""Solve for the integers of the user's code, and grow what is kept until they have a solution."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tersor.errors import PlanError
from tersor.graph.integers import ORDERS, Attribute, Expression, Sum, evaluate, leaves
from tersor.graph.structure import Comparison, Extent, Graph, Kept, SizeEquation

SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "eq": "==", "lt": "<", "le": "<=", "gt": ">",
    "ge": ">=",
}  # fmt: skip
#: Rounds of growing before everything in a conflict is kept.
ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Conflict:
    """Extents that cannot have the sizes that a plan gives them; `target` is a size that all could have."""

    extents: tuple[Extent, ...]
    target: int | None
    why: str


def solve(graph: Graph, kept: Kept) -> dict[Attribute, int]:
    """Return the new value of every attribute that a cut changes.

    Raises:
        PlanError: if no values make the code's sizes agree with the cut, naming what ties them.
    """
    removed = graph.removed(kept)
    for conflict in _conflicts(graph, removed):
        raise PlanError(
            f"This plan needs sizes that the model's code ties together: {conflict.why}. "
            "Use the plan that `close` returns: it keeps the fewest further units that fit."
        )
    values = _values(graph, removed)
    return {key: value for key, value in values.items() if value != graph.attributes[key]}


def close(
    graph: Graph, kept: Kept, scores: Mapping[str, Sequence[float]] | None = None
) -> dict[str, tuple[int, ...]]:
    """Return kept units that fit the code's sizes: those given, and the fewest further ones that are needed.

    Args:
        graph: the traced model.
        kept: units kept by group name; groups not named keep all.
        scores: for groups by name, a value per unit; of units that could come back, higher ones do first.

    Returns:
        The kept units of every group that loses some.

    Raises:
        PlanError: if a group or unit is unknown, or must stay.

    Example:
        >>> from torch import nn, zeros
        >>> from tersor.graph.trace import trace
        >>> graph = trace(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)), (zeros(1, 2),))
        >>> close(graph, {"0": (1, 3)})
        {'0': (1, 3)}
    """
    removed = graph.removed(kept)
    order = _order(graph, scores or {})
    for round_ in range(4 * ROUNDS):
        _keep_one_each(graph, removed, order)
        found = _conflicts(graph, removed)
        if not found:
            break
        for conflict in found:
            _resolve(conflict, removed, order, patient=round_ < ROUNDS)
    return graph.kept(removed)


def _order(graph: Graph, scores: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Return a value per unit: of those removed, the highest comes back first."""
    value = np.zeros(graph.units + 1)
    for name, given in scores.items():
        first = graph.first_unit[name]
        value[first : first + len(given)] = np.asarray(given, dtype=float)
    return value


def _keep_one_each(graph: Graph, removed: np.ndarray, order: np.ndarray) -> None:
    """Bring one index back to every axis that would have none."""
    for extent in _sized_extents(graph):
        if extent.slots and extent.count(removed) == 0:
            _grow(extent, 1, removed, order)


def _sized_extents(graph: Graph) -> Iterator[Extent]:
    yield from graph.extents.values()
    for equation in graph.equations:
        yield equation.extent
    for tie in graph.ties:
        yield from tie.extents


def _conflicts(graph: Graph, removed: np.ndarray) -> list[Conflict]:
    """Return what cannot be satisfied: unequal ties and double values first, else what has no value at all."""
    unequal = [*_unequal_ties(graph, removed), *_double_values(graph, removed)]
    return unequal or [*_unsolved(graph, removed), *_turned(graph, removed)]


def _unequal_ties(graph: Graph, removed: np.ndarray) -> Iterator[Conflict]:
    for tie in graph.ties:
        sizes = [extent.count(removed) for extent in tie.extents]
        if len(set(sizes)) > 1:
            yield Conflict(tie.extents, max(sizes), tie.what)


def _unsolved(graph: Graph, removed: np.ndarray) -> Iterator[Conflict]:
    values = _values(graph, removed)
    for equation in graph.equations:
        if _value(equation.expression, values, removed) != equation.sign * equation.extent.count(removed):
            inside = tuple(leaf for leaf in leaves(equation.expression) if isinstance(leaf, Extent))
            why = f"`{_text(equation.expression)}` sizes `{equation.what}`"
            yield Conflict((equation.extent, *inside, *_linked(graph, equation)), None, why)


def _turned(graph: Graph, removed: np.ndarray) -> Iterator[Conflict]:
    """Find comparisons that come out otherwise than in the trace, so that the code takes another branch."""
    values = _values(graph, removed)
    for one in graph.comparisons:
        left, right = (_value(side, values, removed) for side in (one.left, one.right))
        if None in (left, right) or ORDERS[one.order](left, right) == one.outcome:
            continue
        sized = [e for side in (one.left, one.right) for e in _sized(graph, side)]
        why = f"`{_text(one.left)} {SIGNS[one.order]} {_text(one.right)}` must stay {one.outcome}"
        least = min((extent.count(removed) for extent in sized), default=0)
        same = one.order == "eq" and one.outcome
        yield Conflict(tuple(sized), None if same else least + 1, why)


def _sized(graph: Graph, expression: Expression) -> Iterator[Extent]:
    """Yield the extents that an expression gets its value from."""
    found = set(leaves(expression))
    yield from (leaf for leaf in found if isinstance(leaf, Extent))
    yield from (e.extent for e in graph.equations if found & set(leaves(e.expression)))


def _double_values(graph: Graph, removed: np.ndarray) -> Iterator[Conflict]:
    wanted: dict[tuple[Expression, int], list[Extent]] = defaultdict(list)
    for equation in graph.equations:
        if not isinstance(equation.expression, int):
            wanted[equation.expression, equation.sign].append(equation.extent)
    for (expression, _), extents in wanted.items():
        if isinstance(expression, Extent):
            extents = [*extents, expression]
        sizes = [extent.count(removed) for extent in extents]
        if len(set(sizes)) > 1:
            yield Conflict(tuple(extents), max(sizes), f"`{_text(expression)}` is the size of several axes")


def _linked(graph: Graph, equation: SizeEquation) -> tuple[Extent, ...]:
    """Return the extents whose sizes the attributes of an equation must follow too."""
    used = {leaf for leaf in leaves(equation.expression) if isinstance(leaf, Attribute)}
    return tuple(e.extent for e in graph.equations if e.expression in used)


def _resolve(conflict: Conflict, removed: np.ndarray, order: np.ndarray, patient: bool) -> None:
    if conflict.target is None or not patient:
        for extent in conflict.extents:
            for slot in extent.slots:
                removed[slot[slot >= 0]] = False
        return
    for extent in conflict.extents:
        _grow(extent, conflict.target, removed, order)


def _grow(extent: Extent, target: int, removed: np.ndarray, order: np.ndarray) -> None:
    """Bring units back until the extent keeps at least `target` indices, overshooting as little as possible."""
    while (have := extent.count(removed)) < min(target, extent.size):
        best = min(
            _candidates(extent, removed), key=lambda units: _cost(extent, units, removed, have, target, order)
        )
        removed[list(best)] = False


def _candidates(extent: Extent, removed: np.ndarray) -> list[tuple[int, ...]]:
    """Return the sets of units that would each bring at least one index back."""
    missing = np.flatnonzero(~extent.kept(removed))
    needed = {
        tuple(sorted({int(s[i]) for s in extent.slots if s[i] >= 0 and removed[s[i]]})) for i in missing[:512]
    }
    fewest = min(len(units) for units in needed)
    return sorted(units for units in needed if len(units) == fewest)[:128]


def _cost(
    extent: Extent, units: tuple[int, ...], removed: np.ndarray, have: int, target: int, order: np.ndarray
) -> tuple[float, float, float]:
    trial = removed.copy()
    trial[list(units)] = False
    after = extent.count(trial)
    return max(after - target, 0), -sum(float(order[u]) for u in units), -(after - have)


def _values(graph: Graph, removed: np.ndarray) -> dict[Attribute, int]:
    """Return a value for every attribute: of equations that name it alone, else what solves the compound ones."""
    values: dict[Attribute, int] = {}
    compound = []
    for equation in graph.equations:
        if isinstance(equation.expression, Attribute):
            values.setdefault(equation.expression, equation.sign * equation.extent.count(removed))
        else:
            compound.append(equation)
    for equation in compound:
        _solve_one(graph, equation, values, removed)
    for one in graph.comparisons:
        _follow(graph, one, values, removed)
    return {**graph.attributes, **values}


def _follow(graph: Graph, one: Comparison, values: dict[Attribute, int], removed: np.ndarray) -> None:
    """Give an attribute that is compared and no more the value of what it was equal to."""
    if one.order != "eq" or not one.outcome:
        return
    for side, other in ((one.left, one.right), (one.right, one.left)):
        if isinstance(side, Attribute) and side not in values and not isinstance(other, int):
            value = _value(other, {**graph.attributes, **values}, removed)
            if value is not None:
                values[side] = value


def _solve_one(
    graph: Graph, equation: SizeEquation, values: dict[Attribute, int], removed: np.ndarray
) -> None:
    """Fit the first attribute that is still free, by trying every value up to its old one."""
    wanted = equation.sign * equation.extent.count(removed)
    open_ = [
        leaf for leaf in leaves(equation.expression) if isinstance(leaf, Attribute) and leaf not in values
    ]
    known = {**graph.attributes, **values}
    if not open_:
        return
    if _value(equation.expression, known, removed) == wanted:
        return
    for leaf in open_:
        for trial in range(1, graph.attributes[leaf] + 1):
            if _value(equation.expression, {**known, leaf: trial}, removed) == wanted:
                values[leaf] = trial
                return


def _value(expression: Expression, values: Mapping[Attribute, int], removed: np.ndarray) -> int | None:
    def value_of(leaf: Attribute | Extent) -> int:
        return leaf.count(removed) if isinstance(leaf, Extent) else values[leaf]

    try:
        return evaluate(expression, value_of)
    except ZeroDivisionError:
        return None


def _text(expression: Expression) -> str:
    if isinstance(expression, int | Attribute):
        return str(expression)
    if isinstance(expression, Sum):
        return f"{_text(expression.left)} {SIGNS[expression.operation]} {_text(expression.right)}"
    return "a size"
