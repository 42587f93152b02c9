"""A Plan: what will change, as data. Nothing here touches a model.

Edits name groups and sites by the names that `tersor.trace` gives them. A plan
prints, compares, adds with `+` and round-trips through JSON.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import TypeAlias

from tersor.errors import PlanError


@dataclass(frozen=True, slots=True)
class Cut:
    """Remove units of a group, keeping those listed.

    Attributes:
        group: name of the group, as in `Graph.groups`.
        keep: indices of the units that stay, ascending and unique.
    """

    group: str
    keep: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Quantize:
    """Run a site in integers.

    Attributes:
        site: name of the layer or operation.
        weight_bits: width of a weight code, 2 to 8.
        activation_bits: width of an activation code, 8 or 16; 0 leaves activations in floating point.
    """

    site: str
    weight_bits: int = 8
    activation_bits: int = 8


@dataclass(frozen=True, slots=True)
class Factorize:
    """Replace a layer's weight by a product of two of inner size `rank`."""

    layer: str
    rank: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove a residual block, leaving its skip connection."""

    block: str


@dataclass(frozen=True, slots=True)
class Mask:
    """Hold a part of a parameter at zero.

    Attributes:
        parameter: name of the parameter.
        pattern: `threshold:T` (|w| < T), `ratio:R` (the smallest fraction R) or `N:M` (at most N of every M stay).
    """

    parameter: str
    pattern: str


Edit: TypeAlias = Cut | Quantize | Factorize | Drop | Mask

_KINDS: dict[str, type] = {kind.__name__: kind for kind in (Cut, Quantize, Factorize, Drop, Mask)}


@dataclass(frozen=True, slots=True)
class Plan:
    """An ordered set of edits; equal plans give equal models.

    Example:
        >>> plan = Plan((Cut("conv1", (0, 2)),)) + Plan((Quantize("fc"),))
        >>> Plan.from_json(plan.to_json()) == plan
        True
        >>> print(plan)
        Cut conv1: keep 2 units
        Quantize fc: weights 8 bits, activations 8 bits
    """

    edits: tuple[Edit, ...] = ()

    def __add__(self, other: "Plan") -> "Plan":
        return Plan(self.edits + other.edits)

    def __str__(self) -> str:
        return "\n".join(describe(edit) for edit in self.edits) or "no change"

    def __len__(self) -> int:
        return len(self.edits)

    def of(self, kind: type) -> tuple:
        """Return the edits of one kind, in order."""
        return tuple(edit for edit in self.edits if isinstance(edit, kind))

    def diff(self, other: "Plan") -> tuple[tuple[Edit, ...], tuple[Edit, ...]]:
        """Return the edits that only this plan has, and those that only `other` has."""
        mine, theirs = set(self.edits), set(other.edits)
        return (
            tuple(edit for edit in self.edits if edit not in theirs),
            tuple(edit for edit in other.edits if edit not in mine),
        )

    def to_json(self) -> str:
        """Return the plan as one line of JSON, keys in a fixed order."""
        return json.dumps([{"edit": type(edit).__name__, **asdict(edit)} for edit in self.edits])

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read a plan written by `to_json`.

        Raises:
            PlanError: if the text is not a plan, naming the entry at fault.
        """
        try:
            entries = json.loads(text)
        except json.JSONDecodeError as error:
            raise PlanError(f"This is not a plan: {error}. Write one with `Plan.to_json`.") from error
        if not isinstance(entries, list):
            raise PlanError(f"A plan is a list of edits, got {type(entries).__name__}.")
        return cls(tuple(_read_edit(entry) for entry in entries))


def _read_edit(entry: object) -> Edit:
    kind = _KINDS.get(entry.get("edit", "")) if isinstance(entry, dict) else None
    if kind is None or not isinstance(entry, dict):
        raise PlanError(f"Not an edit: {entry!r}. `edit` must be one of {', '.join(_KINDS)}.")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items() if k != "edit"}
    names = {field.name for field in fields(kind)}
    if set(values) - names:
        raise PlanError(
            f"{kind.__name__} has no field {sorted(set(values) - names)}; it has {sorted(names)}."
        )
    try:
        return kind(**values)
    except TypeError as error:
        raise PlanError(f"Not a complete {kind.__name__}: {entry!r} ({error}).") from error


def describe(edit: Edit) -> str:
    """Return one line of plain words about `edit`."""
    match edit:
        case Cut(group, keep):
            return f"Cut {group}: keep {len(keep)} units"
        case Quantize(site, weight_bits, activation_bits):
            activations = (
                f"activations {activation_bits} bits" if activation_bits else "activations in floating point"
            )
            return f"Quantize {site}: weights {weight_bits} bits, {activations}"
        case Factorize(layer, rank):
            return f"Factorize {layer}: rank {rank}"
        case Drop(block):
            return f"Drop {block}"
        case Mask(parameter, pattern):
            return f"Mask {parameter}: {pattern}"
