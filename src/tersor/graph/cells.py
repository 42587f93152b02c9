"""Cells: the atoms of removal, and the algebra that couples them.

A cell is one index of one logical dimension: a channel, a head, a position
inside a head. Every axis of every tensor carries a list of vectors of cells,
each as long as the axis; an index goes when any of its cells goes. Coupling
two axes makes their cells equal (union-find). An axis that a reshape splits
refines each of its cells into a tuple of cells, one per new axis.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

#: An entry that constrains nothing.
FREE = -2
#: An entry whose index can never go.
FIXED = -1
#: The most cells that one cell refines into.
PARTS = 4

Vector: TypeAlias = np.ndarray
Axis: TypeAlias = list[Vector]


class Cells:
    """A union-find of cells with refinement, in arrays."""

    def __init__(self) -> None:
        self.count = 0
        self.parent = np.arange(1024)
        self.parts = np.full((1024, PARTS), FREE)
        self.refined = np.zeros(1024, bool)
        self.why = np.zeros(1024, np.int32)
        self.role = np.zeros(1024, np.int32)
        self.reasons: list[str] = [""]
        self.version = 0

    def fresh(self, number: int, role: int = 0) -> Vector:
        """Return `number` new cells."""
        while self.count + number > len(self.parent):
            self._grow()
        first, self.count = self.count, self.count + number
        self.role[first : self.count] = role
        return np.arange(first, self.count)

    def _grow(self) -> None:
        size = len(self.parent)
        self.parent = np.concatenate([self.parent, np.arange(size, 2 * size)])
        self.parts = np.concatenate([self.parts, np.full((size, PARTS), FREE)])
        self.refined = np.concatenate([self.refined, np.zeros(size, bool)])
        self.why = np.concatenate([self.why, np.zeros(size, np.int32)])
        self.role = np.concatenate([self.role, np.zeros(size, np.int32)])

    def roots(self, vector: Vector) -> Vector:
        """Return the representative of every entry; negative entries stay."""
        result = vector.copy()
        cells = vector >= 0
        current = vector[cells]
        while True:
            above = self.parent[current]
            if np.array_equal(above, current):
                break
            current = above
        self.parent[vector[cells]] = current
        result[cells] = current
        return result

    def resolve(self, axis: Sequence[Vector]) -> Axis:
        """Return the axis in atomic cells, without vectors that say the same twice."""
        found: Axis = []
        for vector in axis:
            for atom in self._atoms(vector):
                if not any(np.array_equal(atom, other) for other in found):
                    found.append(atom)
        return found

    def _atoms(self, vector: Vector) -> Axis:
        roots = self.roots(vector)
        safe = np.maximum(roots, 0)
        refined = self.refined[safe] & (roots >= 0)
        if not refined.any():
            return [roots]
        atoms: Axis = []
        for part in range(PARTS):
            below = np.where(refined, self.parts[safe, part], roots if part == 0 else FREE)
            if (below != FREE).any():
                atoms += self._atoms(below)
        return atoms

    def freeze(self, axis: Sequence[Vector], reason: str) -> None:
        """Keep every cell of the axis for good."""
        for vector in self.resolve(axis):
            cells = vector[vector >= 0]
            cells = cells[self.why[cells] == 0]
            if len(cells):
                self.why[cells] = self._code(reason)

    def _code(self, reason: str) -> int:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def unify(self, first: Sequence[Vector], second: Sequence[Vector], reason: str) -> Axis:
        """Make two axes lose the same indices, and return the common axis.

        Vectors that say the same are set aside; vectors that cut the axis into the same parts are made
        equal; one vector against several is refined into them. What is left over cannot go.
        """
        left, right = self.resolve(first), self.resolve(second)
        if not left or not right:
            self.freeze(left or right, reason)
            return []
        left, right = _without_common(left, right)
        self._pair_equal_partitions(left, right)
        if len(left) == 1 and len(right) == 1:
            self.union(left[0], right[0])
        elif len(left) == 1 and right:
            self.refine(left[0], right)
        elif len(right) == 1 and left:
            self.refine(right[0], left)
        else:
            self.freeze([*left, *right], reason)
        return self.resolve(first)

    def _pair_equal_partitions(self, left: Axis, right: Axis) -> None:
        """Unite and take out the pairs of vectors that cut the axis into the same parts."""
        for vector in list(left):
            pattern = partition(vector)
            for other in right:
                if np.array_equal(pattern, partition(other)):
                    self.union(vector, other)
                    _take_out(left, vector)
                    _take_out(right, other)
                    break

    def union(self, first: Vector, second: Vector) -> None:
        """Make two vectors equal, entry by entry."""
        left, right = self.roots(first), self.roots(second)
        differ = left != right
        left, right = left[differ], right[differ]
        if not len(left):
            return
        if self._union_at_once(left, right) or self._union_at_once(right, left):
            return
        for pair in sorted(set(zip(left.tolist(), right.tolist(), strict=True))):
            self._union_one(*pair)

    def _union_at_once(self, below: Vector, above: Vector) -> bool:
        """Hang every cell of `below` under `above`, where nothing stands in the way of doing it in one step."""
        plain = (below >= 0).all() and (above >= 0).all()
        if not plain or self.refined[below].any() or self.refined[above].any():
            return False
        if len(np.unique(below)) != len(below) or np.isin(below, above).any():
            return False
        self.version += 1
        self.parent[below] = above
        stuck = self.why[below] > 0
        targets = above[stuck]
        self.why[targets] = np.where(self.why[targets] > 0, self.why[targets], self.why[below[stuck]])
        np.maximum.at(self.role, above, self.role[below])
        return True

    def _union_one(self, first: int, second: int) -> None:
        if FREE in (first, second):
            return
        if first < 0 or second < 0:
            self.freeze([np.array([first, second])], "meets an index that is fixed")
            return
        first, second = (int(c) for c in self.roots(np.array([first, second])))
        if first == second:
            return
        if self.refined[first] and self.refined[second]:
            for pair in zip(self.parts[first].tolist(), self.parts[second].tolist(), strict=True):
                self._union_parts(*pair)
            return
        if self.refined[first]:
            first, second = second, first
        self._hang(first, second)

    def _union_parts(self, first: int, second: int) -> None:
        """Unite two parts; a part that only one side has cannot go."""
        if first == FREE and second == FREE:
            return
        if FREE in (first, second):
            self.freeze([np.array([first, second])], "axes are split in different ways")
            return
        self._union_one(first, second)

    def _hang(self, below: int, above: int) -> None:
        """Hang the plain cell `below` under `above`, which may be refined."""
        leaves = self.resolve([np.array([above])])
        if any(below in leaf for leaf in leaves) and self.refined[above]:
            self.freeze([leaf for leaf in leaves if below not in leaf], "an axis is a part of itself")
            return
        self.version += 1
        self.parent[below] = above
        self.role[above] = max(self.role[above], self.role[below])
        if self.why[below]:
            self.freeze([np.array([above])], self.reasons[self.why[below]])

    def refine(self, vector: Vector, parts: Sequence[Vector]) -> None:
        """Make every cell of `vector` the tuple of the cells of `parts` at its index."""
        if len(parts) > PARTS:
            self.freeze([vector, *parts], "an axis is split into too many")
            return
        roots = self.roots(vector)
        table = np.stack([self.roots(part) for part in parts], axis=1)
        if self._refine_at_once(roots, table):
            return
        rows = np.unique(np.concatenate([roots[:, None], table], axis=1), axis=0)
        for row in rows.tolist():
            self._refine_one(row[0], row[1:])

    def _refine_at_once(self, roots: Vector, table: np.ndarray) -> bool:
        if (roots < 0).any() or self.refined[roots].any() or self.why[roots].any():
            return False
        if len(np.unique(roots)) != len(roots) or np.isin(roots, table).any():
            return False
        self.version += 1
        self.parts[roots, : table.shape[1]] = table
        self.refined[roots] = True
        return True

    def _refine_one(self, cell: int, parts: list[int]) -> None:
        if cell == FREE:
            return
        row = np.array(parts)
        if cell == FIXED:
            self.freeze([row], "meets an index that is fixed")
            return
        cell = int(self.roots(np.array([cell]))[0])
        if self.refined[cell]:
            padded = parts + [FREE] * (PARTS - len(parts))
            for pair in zip(self.parts[cell].tolist(), padded, strict=True):
                self._union_parts(*pair)
            return
        leaves = np.concatenate(self.resolve([row]))
        if cell in leaves:
            self.freeze([leaves[leaves != cell]], "an axis is a part of itself")
            return
        self.version += 1
        self.parts[cell, : len(parts)] = row
        self.refined[cell] = True
        if self.why[cell]:
            self.freeze([row], self.reasons[self.why[cell]])


def partition(vector: Vector) -> Vector:
    """Return for every entry the rank of its cell by first appearance: equal for vectors that cut alike."""
    _, first, inverse = np.unique(vector, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _without_common(left: Axis, right: Axis) -> tuple[Axis, Axis]:
    mine = [v for v in left if not any(np.array_equal(v, w) for w in right)]
    theirs = [w for w in right if not any(np.array_equal(v, w) for v in left)]
    return mine, theirs


def _take_out(axis: Axis, vector: Vector) -> None:
    axis[:] = [other for other in axis if other is not vector]
