"""What a model would cost with fewer units: from kept units per group to multiply-adds or parameters."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from tersor.analysis.facts import Facts, site_macs
from tersor.analysis.uses import first_names, tensors
from tersor.graph.groups import Group

#: Indices of an axis that the same groups cover: their share of the axis, and (group, its size) for each.
_Segment = tuple[float, tuple[tuple[str, int], ...]]


@dataclass(frozen=True, slots=True)
class Cost:
    r"""A cost as a function of how many units each group keeps.

    $$c(k) = c_0 + \sum_t a_t \prod_{\mathrm{axes\ of}\ t} \sum_{\mathrm{segments}} \mathrm{share}
    \prod_{g \ni \mathrm{segment}} k_g / n_g$$

    Exact for channels, heads, head features and concatenations; call it with
    `{group: units kept}`, where a group that is left out keeps all.

    Attributes:
        unit: what is counted: `macs` or `parameters`.
        fixed: the part that no group changes.
        terms: amount, and the segments of each axis.
    """

    unit: str
    fixed: float
    terms: tuple[tuple[float, tuple[tuple[_Segment, ...], ...]], ...]

    def __call__(self, kept: Mapping[str, int]) -> float:
        """Return the cost when each named group keeps that many units."""
        return self.fixed + sum(
            amount * math.prod(sum(_left(segment, kept) for segment in axis) for axis in axes)
            for amount, axes in self.terms
        )


def _left(segment: _Segment, kept: Mapping[str, int]) -> float:
    share, owners = segment
    return share * math.prod(kept.get(name, size) / size for name, size in owners)


def parameter_cost(model: nn.Module, groups: Sequence[Group]) -> Cost:
    """Return the number of parameters as a function of kept units; tied ones count once.

    Example:
        >>> from tersor.graph.groups import Group, Member
        >>> net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
        >>> units = (0, 1, 2, 3)
        >>> hidden = Group("0", "hidden", 4, tuple(
        ...     Member(name, axis, units) for name, axis in [("0.weight", 0), ("0.bias", 0), ("1.weight", 1)]))
        >>> cost = parameter_cost(net, [hidden])
        >>> cost({}), cost({"0": 1})
        (17.0, 5.0)
    """
    held, first = tensors(model), first_names(model)
    amounts = {
        name: float(held[name].numel()) for name in dict(model.named_parameters()) if first[name] == name
    }
    return _cost("parameters", model, groups, amounts, 0.0)


def mac_cost(model: nn.Module, groups: Sequence[Group], counted: Facts) -> Cost:
    """Return the multiply-adds per sample as a function of kept units.

    Operations without a parameter, as the products inside attention, count as fixed.

    Args:
        model: the network that `groups` and `counted` describe.
        groups: its groups.
        counted: its facts.
    """
    amounts = {name: float(macs) for name, macs in site_macs(counted).items()}
    return _cost("macs", model, groups, amounts, counted.macs - sum(amounts.values()))


def _cost(
    unit: str, model: nn.Module, groups: Sequence[Group], amounts: Mapping[str, float], fixed: float
) -> Cost:
    segments = _segments(model, groups)
    terms = []
    for name, amount in amounts.items():
        axes = tuple(segments.get(name, {}).values())
        if axes:
            terms.append((amount, axes))
        else:
            fixed += amount
    return Cost(unit, float(fixed), tuple(terms))


def _segments(model: nn.Module, groups: Sequence[Group]) -> dict[str, dict[int, tuple[_Segment, ...]]]:
    """Return for each parameter and axis which groups cover which share of its indices."""
    first = first_names(model)
    owners: dict[tuple[str, int], dict[tuple[str, int], np.ndarray]] = defaultdict(dict)
    for group in groups:
        for member in group.members:
            covered = np.asarray(member.units) >= 0
            owners[first[member.tensor], member.axis][group.name, group.size] = covered
    found: dict[str, dict[int, tuple[_Segment, ...]]] = defaultdict(dict)
    for (name, axis), masks in owners.items():
        patterns, counts = np.unique(np.stack(list(masks.values()), 1), axis=0, return_counts=True)
        found[name][axis] = tuple(
            (
                count / int(counts.sum()),
                tuple(owner for owner, here in zip(masks, pattern, strict=True) if here),
            )
            for pattern, count in zip(patterns.tolist(), counts.tolist(), strict=True)
        )
    return found
