"""The nouns of the graph room: a Group is a permutation symmetry of a network."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """One axis of one parameter or buffer that a group's units run along.

    Attributes:
        tensor: name of the parameter or buffer in `model.state_dict()` terms.
        axis: the axis.
        units: for each index of the axis the unit that it belongs to, or -1 for none. A head of 64 features
            appears as 64 equal entries.
    """

    tensor: str
    axis: int
    units: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A set of units that can be permuted, and therefore removed, together.

    An index of an axis goes when *any* unit that it belongs to, of any group, is removed.

    Attributes:
        name: stable name, derived from the first parameter that produces the units.
        kind: `channels`, `heads`, `head features`, `kv groups`, `hidden`, `residual`, `embedding`, ...
        size: number of units.
        members: every axis that the units run along.
        parameters: parameters that one unit carries, summed over its members.
        macs: multiply-adds per sample that one unit carries.
        reason: why the units must stay; empty when they can be pruned.
    """

    name: str
    kind: str
    size: int
    members: tuple[Member, ...]
    parameters: int = 0
    macs: int = 0
    reason: str = ""

    @property
    def prunable(self) -> bool:
        """Whether units of this group may be removed."""
        return not self.reason
