"""What a model would cost with fewer units: from kept units per group to multiply-adds or parameters."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tersor.graph.structure import Extent, Graph

#: Indices of an axis that the same groups cover: their share of the axis, and (group, its size) for each.
_Segment = tuple[float, tuple[tuple[str, int], ...]]
_Axis = tuple[_Segment, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    r"""A cost as a function of how many units each group keeps.

    $$c(k) = c_0 + \sum_t a_t \prod_{\mathrm{axes\ of}\ t} \sum_{\mathrm{segments}} \mathrm{share}
    \prod_{g \ni \mathrm{segment}} k_g / n_g$$

    Equals the cost of the cut model for channels, heads, head features and
    concatenations, where it does not matter which units stay. Call it with
    `{group: units kept}`; a group that is left out keeps all.

    Attributes:
        unit: what is counted: `macs` (multiply-adds per sample) or `parameters`.
        fixed: the part that no group changes.
        terms: amount, and the segments of each axis.
    """

    unit: str
    fixed: float
    terms: tuple[tuple[float, tuple[_Axis, ...]], ...]

    def __call__(self, kept: Mapping[str, int]) -> float:
        """Return the cost when each named group keeps that many units."""
        return self.fixed + sum(
            amount * math.prod(sum(_left(segment, kept) for segment in axis) for axis in axes)
            for amount, axes in self.terms
        )

    @property
    def groups(self) -> frozenset[str]:
        """Names of the groups that change the cost."""
        return frozenset(
            name for _, axes in self.terms for axis in axes for _, owners in axis for name, _ in owners
        )


def _left(segment: _Segment, kept: Mapping[str, int]) -> float:
    share, owners = segment
    return share * math.prod(kept.get(name, size) / size for name, size in owners)


def parameter_cost(graph: Graph) -> Cost:
    """Return the number of parameters as a function of kept units; tied ones count once.

    Example:
        >>> import torch
        >>> from tersor.graph.trace import trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> cost = parameter_cost(trace(net, (torch.zeros(1, 2),)))
        >>> cost({}), cost({"0": 1})
        (17.0, 5.0)
    """
    axes: dict[str, list[Extent]] = {name: [] for name in graph.sizes}
    for (tensor, _), extent in graph.extents.items():
        if tensor in axes:
            axes[tensor].append(extent)
    return _cost(
        "parameters", _Owners(graph), ((graph.sizes[name], extents) for name, extents in axes.items())
    )


def mac_cost(graph: Graph) -> Cost:
    """Return the multiply-adds per sample as a function of kept units, products inside attention included."""
    return _cost(
        "macs", _Owners(graph), ((operation.macs, operation.extents) for operation in graph.operations)
    )


def shares(graph: Graph, products: Iterable[Iterable[Extent]]) -> tuple[Cost, ...]:
    """Return, for each product of axes, the share of it that is left as a function of kept units.

    Example:
        >>> import torch
        >>> from tersor.graph.trace import trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> graph = trace(net, (torch.zeros(1, 2),))
        >>> (read,) = shares(graph, [[graph.extents["2.weight", 1]]])
        >>> read({"0": 1})
        0.25
    """
    owners = _Owners(graph)
    return tuple(_cost("share", owners, [(1.0, extents)]) for extents in products)


def _cost(unit: str, owners: "_Owners", amounts: Iterable[tuple[float, Iterable[Extent]]]) -> Cost:
    fixed, merged = 0.0, dict[tuple[_Axis, ...], float]()
    for amount, extents in amounts:
        axes = tuple(sorted(filter(None, (owners.segments(extent) for extent in extents))))
        if axes:
            merged[axes] = merged.get(axes, 0.0) + amount
        else:
            fixed += amount
    return Cost(unit, fixed, tuple((amount, axes) for axes, amount in merged.items() if amount))


class _Owners:
    """Which group each unit number of a graph belongs to."""

    def __init__(self, graph: Graph) -> None:
        # One entry per unit and a last one for -1; units outside every group change nothing either.
        self.of_unit = np.full(graph.units + 1, -1)
        for index, group in enumerate(graph.groups):
            first = graph.first_unit[group.name]
            self.of_unit[first : first + group.size] = index
        self.named = [(group.name, group.size) for group in graph.groups]

    def segments(self, extent: Extent) -> _Axis:
        """Return the segments of an axis; none where no group covers it."""
        if not extent.slots:
            return ()
        owner = self.of_unit[np.stack(extent.slots)]
        if (owner < 0).all():
            return ()
        patterns, counts = np.unique(owner, axis=1, return_counts=True)
        return tuple(
            (count / extent.size, tuple(self.named[index] for index in sorted(set(pattern)) if index >= 0))
            for pattern, count in zip(patterns.T.tolist(), counts.tolist(), strict=True)
        )
