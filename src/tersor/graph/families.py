"""Cells become units, sorted into families that appear on the same axes."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from tersor.graph.cells import Axis, Cells
from tersor.graph.equations import Arithmetic
from tersor.graph.integers import Attribute, Expression, Observed, Size, Sum, leaves
from tersor.graph.structure import Comparison, Extent, SizeEquation, SizeTie


@dataclass(slots=True)
class Family:
    """Cells that appear on the same axes: one future group."""

    cells: np.ndarray
    reason: str
    places: list[tuple[str, int, int]] = field(default_factory=list)


def families(cells: Cells, axes: dict[tuple[str, int], Axis]) -> list[Family]:
    """Sort cells into families: cells of one family appear equally often on the same vectors of the same axes."""
    places: list[tuple[str, int, int]] = []
    found, where = [], []
    for (name, axis), vectors in axes.items():
        for slot, vector in enumerate(cells.resolve(vectors)):
            live = vector[vector >= 0]
            found.append(live)
            where.append(np.full(len(live), len(places)))
            places.append((name, axis, slot))
    if not found:
        return []
    codes, counts = np.unique(np.concatenate(found) * len(places) + np.concatenate(where), return_counts=True)
    pairs = np.stack(np.divmod(codes, len(places)), axis=1)
    signatures: dict[tuple[tuple[int, ...], int], list[int]] = defaultdict(list)
    starts = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    for start, stop in zip(starts, np.append(starts[1:], len(pairs)), strict=True):
        cell = int(pairs[start, 0])
        key = (*pairs[start:stop, 1].tolist(), *counts[start:stop].tolist())
        signatures[key, int(cells.why[cell])].append(cell)
    return [
        Family(np.array(members), cells.reasons[why], [places[j] for j in key[: len(key) // 2]])
        for (key, why), members in signatures.items()
    ]


class Units:
    """The numbering of cells as units, and axes in terms of it."""

    def __init__(self, cells: Cells, found: list[Family]) -> None:
        self.cells, self.families = cells, found
        self.number = np.full(cells.count + 2, -1)
        self.first: list[int] = []
        self.total = 0
        for family in found:
            self.first.append(self.total)
            self.number[family.cells] = np.arange(self.total, self.total + len(family.cells))
            self.total += len(family.cells)
        self.stuck = np.zeros(self.total + 1, bool)
        for first, family in zip(self.first, found, strict=True):
            self.stuck[first : first + len(family.cells)] = bool(family.reason)
        self._extents: dict[tuple[bytes, ...], Extent] = {}

    def extent(self, axis: Axis, size: int) -> Extent:
        """Return an axis in units; equal axes give the same object."""
        slots = []
        for vector in self.cells.resolve(axis):
            slot = np.where(vector >= 0, self.number[np.maximum(vector, 0)], -1)
            if (slot >= 0).any():
                slots.append(slot)
        key = (str(size).encode(), *(slot.tobytes() for slot in slots))
        return self._extents.setdefault(key, Extent(size, tuple(slots)))

    def movable(self, extent: Extent) -> bool:
        """Whether any index of an extent may go."""
        return any(not self.stuck[slot].all() for slot in extent.slots)

    def arithmetic(
        self, found: Arithmetic, seen: Observed
    ) -> tuple[tuple[SizeEquation, ...], tuple[SizeTie, ...]]:
        """Return the equations and ties over extents, each once."""
        equations: dict[tuple, SizeEquation] = {}
        for one in found.equations:
            extent = self.extent(one.axis, one.size)
            made = SizeEquation(self._compiled(one.expression, seen), extent, one.sign, one.what)
            equations.setdefault((made.expression, id(extent), one.sign), made)
        for attribute, size in seen.comparisons():
            extent = self.extent(size.axis, size.value)
            if self.movable(extent):
                made = SizeEquation(attribute, extent, 1, "a comparison")
                equations.setdefault((attribute, id(extent), 1), made)
        ties: dict[tuple, SizeTie] = {}
        for tie in found.ties:
            extents = tuple(self.extent(axis, size) for axis, size in tie.axes)
            ties.setdefault(tuple(map(id, extents)), SizeTie(extents, tie.what))
        return tuple(equations.values()), tuple(ties.values())

    def comparisons(self, seen: Observed) -> tuple[Comparison, ...]:
        """Return the comparisons of attributes, each once; two sizes are often equal by chance."""
        found: dict[tuple, Comparison] = {}
        for order, left, right, outcome in seen.compared:
            made = Comparison(order, self._compiled(left, seen), self._compiled(right, seen), outcome)
            sides = [*leaves(made.left), *leaves(made.right)]
            if any(isinstance(leaf, Attribute) for leaf in sides):
                found.setdefault((order, made.left, made.right), made)
        return tuple(found.values())

    def _compiled(self, expression: Expression, seen: Observed) -> Expression:
        if isinstance(expression, Sum):
            return Sum(
                expression.operation,
                self._compiled(expression.left, seen),
                self._compiled(expression.right, seen),
            )
        if isinstance(expression, Size):
            return (
                self.extent(expression.axis, expression.value)
                if expression.owner is seen
                else expression.value
            )
        return expression
