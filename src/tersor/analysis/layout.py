"""Where the units of a group lie in a tensor: which entries, in which order, in which role."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tersor.analysis.evidence import Part
from tersor.analysis.uses import Use
from tersor.errors import ArgumentError
from tersor.graph.groups import Group, Member


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read one member as a matrix with one row per unit.

    Attributes:
        member: the member.
        parameter: first name of its tensor, the same for tied ones.
        role: as in `Part`.
        axes: permutation that brings the axes of the rows to the front.
        leading: how many of `axes` make up the rows.
        order: the rows that belong to a unit, sorted by unit.
        width: rows of each unit.
        size: number of units.
    """

    member: Member
    parameter: str
    role: str
    axes: tuple[int, ...]
    leading: int
    order: Int[Tensor, "features"]
    width: int
    size: int

    def rows(self, tensor: Tensor) -> Float[Tensor, "units entries"]:
        """Return `tensor`, shaped like the member's, as one row of entries per unit, in float32 at least."""
        leading = math.prod(tensor.shape[axis] for axis in self.axes[: self.leading])
        matrix = tensor.detach().permute(self.axes).reshape(leading, -1)[self.order.to(tensor.device)]
        return matrix.reshape(self.size, -1).to(torch.promote_types(tensor.dtype, torch.float32))

    def totals(self, tensor: Tensor) -> Float[Tensor, "units"]:
        """Return the sum over the entries of each unit: that of `rows`, without moving the tensor."""
        rest = tuple(range(self.leading, len(self.axes)))
        permuted = tensor.detach().permute(self.axes)
        leading = (permuted.sum(rest) if rest else permuted).flatten()
        return leading[self.order.to(tensor.device)].reshape(self.size, -1).sum(1)

    def features(self, matrix: Float[Tensor, "all all"]) -> Float[Tensor, "features features"]:
        """Return the rows and columns of a matrix of all features that belong to a unit, sorted by unit."""
        order = self.order.to(matrix.device)
        return matrix[order][:, order]

    def part(self, tensor: Tensor) -> Part:
        """Return the member as a `Part` without any field."""
        return Part(self.member.tensor, self.member.axis, self.role, self.rows(tensor), self.width)


def layouts(
    group: Group, tensors: Mapping[str, Tensor], first: Mapping[str, str], uses: Iterable[Use]
) -> tuple[Layout, ...]:
    """Return how the members of `group` lie; a tied tensor appears once.

    Raises:
        ArgumentError: if a member names no tensor of the model, or gives its units unequal shares.
    """
    found: dict[tuple[str, int, tuple[int, ...]], Layout] = {}
    for member in group.members:
        if member.tensor not in tensors:
            raise ArgumentError(
                f"Group {group.name!r} names {member.tensor!r}, which this model does not have."
            )
        name = first[member.tensor]
        mine = [use for use in uses if use.parameter == name]
        found.setdefault(
            (name, member.axis, member.units), _layout(group, member, tensors[member.tensor], mine, name)
        )
    return tuple(found.values())


def _layout(group: Group, member: Member, tensor: Tensor, uses: Sequence[Use], name: str) -> Layout:
    use = next((use for use in uses if member.axis in use.reads and use.role == "contracts"), None)
    if use is None:
        role = _role(member, tensor, uses)
        rest = tuple(axis for axis in range(tensor.dim()) if axis != member.axis)
        order, width = order_of(member.units, group.size)
        return Layout(member, name, role, (member.axis, *rest), 1, torch.from_numpy(order), width, group.size)
    shape = [tensor.shape[axis] for axis in use.reads]
    along = [-1 if axis == member.axis else 1 for axis in use.reads]
    owner = np.broadcast_to(np.asarray(member.units).reshape(along), shape).ravel()
    order, width = order_of(owner, group.size)
    axes = use.reads + tuple(axis for axis in range(tensor.dim()) if axis not in use.reads)
    return Layout(member, name, "reads", axes, len(use.reads), torch.from_numpy(order), width, group.size)


def _role(member: Member, tensor: Tensor, uses: Sequence[Use]) -> str:
    roles = [use.role for use in uses if member.axis in use.writes]
    if "contracts" in roles and tensor.dim() > 1:
        return "writes"
    return next((role for role in roles if role != "contracts"), "carries")


def order_of(units: Sequence[int] | np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """Return the indices of an axis sorted by unit, and how many each unit has.

    Raises:
        ArgumentError: if the units do not have equally many indices.

    Example:
        >>> order_of((0, 1, -1, 0, 1), 2)
        (array([0, 3, 1, 4]), 2)
    """
    owner = np.asarray(units)
    order = np.argsort(owner, kind="stable")
    order = order[np.searchsorted(owner[order], 0) :]
    counts = np.bincount(owner[owner >= 0], minlength=size)
    if not len(order) or counts.min() != counts.max() or len(counts) != size:
        raise ArgumentError(
            f"Units of one group must have equally many indices on an axis, got {counts.tolist()}."
        )
    return order, int(counts[0])


def signature(group: Group, members: Iterable[Layout]) -> str:
    """Return what the group does in the network, without its sizes: its kind and the roles of its members."""
    roles = {f"{layout.role}:{len(layout.axes)}:{layout.member.axis}" for layout in members}
    return "|".join((group.kind, *sorted(roles)))
