"""The Graph: what one forward pass says about a network, as data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tersor.errors import PlanError
from tersor.graph.groups import Group
from tersor.graph.integers import Attribute, Expression

#: Kept unit indices by group name.
Kept = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """An axis in units: for each slot and index a unit number of the graph, or -1 for none.

    Attributes:
        size: number of indices before any cut.
        slots: vectors of unit numbers; an index goes when any of its units goes.
    """

    size: int
    slots: tuple[np.ndarray, ...]

    def kept(self, removed: np.ndarray) -> np.ndarray:
        """Return which indices stay; `removed` has one entry per unit and a last one that is false."""
        stays = np.ones(self.size, bool)
        for slot in self.slots:
            stays &= ~removed[slot]
        return stays

    def count(self, removed: np.ndarray) -> int:
        """Return how many indices stay."""
        return int(self.kept(removed).sum()) if self.slots else self.size


@dataclass(frozen=True, slots=True)
class Operation:
    """One ATen operation of the traced pass.

    Attributes:
        name: unique name, the module's path and a count.
        module: path of the innermost module that ran it.
        op: ATen name.
        shape: shape of the first output.
        macs: multiply-adds per sample.
        extents: the axes that the multiply-adds run over.
    """

    name: str
    module: str
    op: str
    shape: tuple[int, ...]
    macs: int
    extents: tuple[Extent, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class SizeEquation:
    """An expression over attributes and extents that has `sign` times the count of an extent as its value."""

    expression: Expression
    extent: Extent
    sign: int
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class SizeTie:
    """Extents that keep equally many indices."""

    extents: tuple[Extent, ...]
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Two expressions that the user's code compared, and what came out: a branch hangs on it.

    Attributes:
        order: `eq`, `lt`, `le`, `gt` or `ge`.
        left: what stands on the left.
        right: what stands on the right.
        outcome: what came out in the trace.
    """

    order: str
    left: Expression
    right: Expression
    outcome: bool


@dataclass(frozen=True, eq=False)
class Graph:
    """A network's operations, its groups, and what its code says about sizes.

    Attributes:
        groups: permutation symmetries, prunable or with the reason why not.
        operations: ATen operations in the order in which they ran.
        blocks: modules that add to their input, and so can be dropped: by name the number of values that each
            returns in a tuple, 0 for a single tensor.
        branches: modules whose output is added to a stream, and so can be dropped on their own: an attention, or the
            feed-forward part of a block; with the number of values as for blocks.
        opaque: operations without a rule, and how often each ran; what they touch is frozen.
        unused: parameters that the forward pass did not touch.
        extents: the axes of every parameter and buffer, in units.
        sizes: number of elements of every parameter.
        equations: what integers of the user's code must equal.
        ties: axes that must keep equally many indices.
        comparisons: what the user's code compared, and must find again as it was.
        attributes: the integers held by modules that take part, with their values.
    """

    groups: tuple[Group, ...]
    operations: tuple[Operation, ...]
    blocks: Mapping[str, int]
    branches: Mapping[str, int]
    opaque: Mapping[str, int]
    unused: tuple[str, ...]
    extents: Mapping[tuple[str, int], Extent] = field(repr=False)
    sizes: Mapping[str, int] = field(repr=False)
    equations: tuple[SizeEquation, ...] = field(repr=False)
    ties: tuple[SizeTie, ...] = field(repr=False)
    comparisons: tuple[Comparison, ...] = field(repr=False)
    attributes: Mapping[Attribute, int] = field(repr=False)
    first_unit: Mapping[str, int] = field(repr=False)
    units: int = field(repr=False)

    def group(self, name: str) -> Group:
        """Return the group of a name.

        Raises:
            PlanError: if there is none, naming the closest.
        """
        from difflib import get_close_matches

        found = {group.name: group for group in self.groups}
        if name in found:
            return found[name]
        close = get_close_matches(name, found, n=3)
        some = ", ".join(map(repr, close or list(found)[:4]))
        hint = f" Did you mean {some}?" if close else f" It has {some}, ...; `Graph.table()` lists all."
        raise PlanError(f"The model has no group {name!r}.{hint}")

    def removed(self, kept: Kept) -> np.ndarray:
        """Return which units go, with a last entry that is false.

        Raises:
            PlanError: if a group is unknown, must stay, or would keep nothing or a unit that it has not.
        """
        removed = np.zeros(self.units + 1, bool)
        for name, keep in kept.items():
            group, first = self.group(name), self.first_unit[name]
            stay = check_keep(group, keep)
            removed[first : first + group.size] = True
            removed[first + stay] = False
        return removed

    def kept(self, removed: np.ndarray) -> dict[str, tuple[int, ...]]:
        """Return the kept units of every group that loses some."""
        result = {}
        for group in self.groups:
            first = self.first_unit[group.name]
            stays = np.flatnonzero(~removed[first : first + group.size])
            if len(stays) < group.size:
                result[group.name] = tuple(int(i) for i in stays)
        return result

    def macs(self, kept: Kept | None = None) -> int:
        """Return the multiply-adds per sample, after a cut if one is given."""
        removed = self.removed(kept or {})
        return sum(
            round(op.macs * math.prod(e.count(removed) / e.size for e in op.extents))
            for op in self.operations
            if op.macs
        )

    def parameters(self, kept: Kept | None = None) -> int:
        """Return the number of parameters, after a cut if one is given; tied ones count once."""
        removed = self.removed(kept or {})
        shares = dict.fromkeys(self.sizes, 1.0)
        for (tensor, _), extent in self.extents.items():
            if tensor in shares and extent.slots:
                shares[tensor] *= extent.count(removed) / extent.size
        return sum(round(self.sizes[name] * share) for name, share in shares.items())

    def table(self) -> str:
        """Return the groups as lines of text."""
        rows = [("group", "kind", "units", "parameters/unit", "MACs/unit", "prunable")]
        rows += [
            (g.name, g.kind, f"{g.size}", f"{g.parameters}", f"{g.macs}", g.reason or "yes")
            for g in self.groups
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        return "\n".join(
            "  ".join([*(cell.ljust(w) for cell, w in zip(row[:5], widths, strict=True)), row[5]]).rstrip()
            for row in rows
        )


def check_keep(group: Group, keep: Sequence[int]) -> np.ndarray:
    """Return the kept units of a group as an array.

    Raises:
        PlanError: if the group must stay, or the indices are not an ascending choice of its units.
    """
    stay = np.asarray(keep, dtype=np.int64).reshape(-1)
    if not group.prunable and len(stay) < group.size:
        units = f"all its {group.size} units" if group.size > 1 else "its only unit"
        raise PlanError(f"Group {group.name!r} must keep {units}: {group.reason}.")
    if not len(stay):
        raise PlanError(
            f"Group {group.name!r} would keep no unit. Keep at least one, or drop the block around it."
        )
    if stay.min() < 0 or stay.max() >= group.size or (np.diff(stay) <= 0).any():
        raise PlanError(
            f"`keep` of {group.name!r} must be ascending, unique and in 0..{group.size - 1}, got {list(keep)[:8]}."
        )
    return stay
