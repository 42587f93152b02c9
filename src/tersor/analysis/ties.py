"""Which groups must keep equal shares of their units: those that one size in the model's code stands for."""

import math
from collections.abc import Sequence

from tersor.graph.groups import Group
from tersor.graph.solve import close
from tersor.graph.structure import Graph


def ties(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Return sets of prunable groups that can only be cut to equal shares.

    Found by asking the graph: a group whose last unit may not go alone, but may with the last unit of
    another group (the last k of one that is k times larger), is tied to it. Pass the result as `together`
    to the selection; otherwise `close` has to put units back afterwards.

    Example:
        >>> from torch import nn, zeros
        >>> from tersor.graph.trace import trace
        >>> ties(trace(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)), (zeros(1, 2),)))
        ()
    """
    bound = [
        group for group in graph.groups if group.prunable and group.size > 1 and not _may_go(graph, [group])
    ]
    found: list[tuple[str, ...]] = []
    while bound:
        first, bound = bound[0], bound[1:]
        alike = [group for group in bound if math.gcd(group.size, first.size) > 1]
        tied = next(([first, other] for other in alike if _may_go(graph, [first, other])), None)
        if tied is None and _may_go(graph, [first, *alike]):
            tied = _needed(graph, [first, *alike])
        if tied:
            found.append(tuple(group.name for group in tied))
            bound = [group for group in bound if group not in tied]
    return tuple(found)


def _may_go(graph: Graph, groups: Sequence[Group]) -> bool:
    shared = math.gcd(*(group.size for group in groups))
    asked = {group.name: tuple(range(group.size - group.size // shared)) for group in groups}
    return shared > 1 and close(graph, asked) == asked


def _needed(graph: Graph, groups: list[Group]) -> list[Group]:
    """Drop the groups without which the others may still go."""
    for group in groups[1:]:
        rest = [other for other in groups if other is not group]
        if _may_go(graph, rest):
            groups = rest
    return groups
