"""Names, kinds and costs of groups."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from tersor.graph.families import Family, Units
from tersor.graph.groups import Group, Member
from tersor.graph.labels import ROLES
from tersor.graph.structure import Extent, Operation

#: Reasons that are in the nature of an axis and not worth a row in the table.
OBVIOUS = (
    "is the kernel", "is the space", "is a vocabulary", "is looked up by index", "was not used", "is selected from",
    "is unbound",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Context:
    """What a group is described from."""

    units: Units
    extents: Mapping[tuple[str, int], Extent]
    tensors: Mapping[str, Tensor]
    modules: Mapping[str, nn.Module]
    operations: Sequence[Operation]
    parameters: frozenset[str]


def describe(context: Context) -> tuple[tuple[Group, ...], dict[str, int]]:
    """Return the groups with their names, and the number of the first unit of each."""
    sources = _sources(context)
    macs = _macs_per_unit(context)
    drafts = []
    for first, family in zip(context.units.first, context.units.families, strict=True):
        reason = family.reason or ("it has one unit" if len(family.cells) == 1 else "")
        if family.reason and (reason.startswith(OBVIOUS) or len(family.cells) == 1 or first not in sources):
            continue
        members = _members(context, family, first)
        base = (
            sources.get(first) or members[0].tensor.removesuffix(".weight").removesuffix("weight") or "model"
        )
        kind = _kind(context, family, members)
        drafts.append((base, kind, first, family, members, reason, int(macs[first])))
    names = _unique([(base, kind) for base, kind, *_ in drafts])
    groups = tuple(
        Group(
            name,
            kind,
            len(family.cells),
            members,
            _parameters(context, members, len(family.cells)),
            cost,
            reason,
        )
        for name, (_, kind, _, family, members, reason, cost) in zip(names, drafts, strict=True)
    )
    return groups, {name: draft[2] for name, draft in zip(names, drafts, strict=True)}


def _unique(wanted: Sequence[tuple[str, str]]) -> list[str]:
    """Return a name each: the base alone where no other group has it, else with the kind, else with a count."""
    bases, used, names = Counter(base for base, _ in wanted), defaultdict(int), []
    for base, kind in wanted:
        name = base if bases[base] == 1 else f"{base}:{kind}"
        used[name] += 1
        names.append(name if used[name] == 1 else f"{name}#{used[name]}")
    return names


def _members(context: Context, family: Family, first: int) -> tuple[Member, ...]:
    stop, members = first + len(family.cells), {}
    slots = [
        (name, axis, slot) for name, axis, _ in family.places for slot in context.extents[name, axis].slots
    ]
    for name, axis, slot in slots:
        own = (slot >= first) & (slot < stop)
        if own.any():
            members[Member(name, axis, tuple(np.where(own, slot - first, -1).tolist()))] = None
    return tuple(members)


def _sources(context: Context) -> dict[int, str]:
    """Return for the first unit of each family the module that first put it out of a contraction or lookup."""
    result: dict[int, str] = {}
    owner = np.full(context.units.total + 1, -1)
    for first, family in zip(context.units.first, context.units.families, strict=True):
        owner[first : first + len(family.cells)] = first
    for operation in context.operations:
        made = operation.extents if operation.module else ()
        slots = [slot for extent in made[: len(operation.shape)] for slot in extent.slots]
        for first in np.unique(owner[np.concatenate(slots)]).tolist() if slots else ():
            result.setdefault(first, operation.module)
    return result


def _macs_per_unit(context: Context) -> np.ndarray:
    """Return the multiply-adds that each unit carries, at the place of the first unit of its family the mean."""
    cost = np.zeros(context.units.total + 1)
    shares = [
        (o.macs / e.size, slot) for o in context.operations if o.macs for e in o.extents for slot in e.slots
    ]
    for share, slot in shares:
        np.add.at(cost, slot, share)
    for first, family in zip(context.units.first, context.units.families, strict=True):
        cost[first] = cost[first : first + len(family.cells)].mean()
    return cost


def _parameters(context: Context, members: Sequence[Member], size: int) -> int:
    total = 0.0
    for member in members:
        if member.tensor in context.parameters:
            tensor = context.tensors[member.tensor]
            carried = int((np.asarray(member.units) >= 0).sum())
            total += tensor.numel() / len(member.units) * carried / size
    return round(total)


def _kind(context: Context, family: Family, members: Sequence[Member]) -> str:
    role = ROLES[int(context.units.cells.role[family.cells].max())]
    if any(_recurrent(context, member) for member in members):
        return "recurrent hidden"
    if role == "heads" and _shares_axis(context, family, "heads per kv group"):
        return "kv groups"
    if role in ("", "hidden", "stream", "channels"):
        return _plain_kind(context, role, members)
    return role


def _plain_kind(context: Context, role: str, members: Sequence[Member]) -> str:
    shapes = [(m, context.tensors[m.tensor].dim()) for m in members]
    embeds = any(isinstance(context.modules.get(m.tensor.rpartition(".")[0]), nn.Embedding) for m in members)
    producers = sum(m.axis == 0 and rank >= 2 for m, rank in shapes)
    if role == "stream" and (producers >= 2 or embeds):
        return "residual"
    if embeds:
        return "embedding"
    convolves = any(rank >= 4 for _, rank in shapes) or role == "channels"
    stacked = all(rank == 3 for _, rank in shapes)
    return "channels" if convolves else "expert hidden" if stacked else "hidden"


def _recurrent(context: Context, member: Member) -> bool:
    owner, _, leaf = member.tensor.rpartition(".")
    module = context.modules.get(owner)
    return isinstance(module, nn.RNNBase | nn.RNNCellBase) and leaf.startswith("weight_hh")


def _shares_axis(context: Context, family: Family, role: str) -> bool:
    """Whether a cell of a role sits beside the family on one of its axes."""
    wanted = ROLES.index(role)
    roles = np.zeros(context.units.total + 1, np.int64)
    for first, other in zip(context.units.first, context.units.families, strict=True):
        roles[first : first + len(other.cells)] = context.units.cells.role[other.cells]
    return any(
        (roles[slot[slot >= 0]] == wanted).any()
        for name, axis, _ in family.places
        for slot in context.extents[name, axis].slots
    )
