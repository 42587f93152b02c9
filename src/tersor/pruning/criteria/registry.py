"""What a criterion is, and the table of those that exist."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from jaxtyping import Float
from torch import Tensor

from tersor._check import one_of
from tersor.analysis.evidence import Evidence


class Criterion(Protocol):
    """A frozen dataclass that says how much each unit of a group matters."""

    @property
    def needs(self) -> frozenset[str]:
        """Return the fields of the evidence that the score reads, besides the weights."""
        ...

    def score(self, evidence: Evidence) -> Float[Tensor, "units"]:
        """Return one finite, non-negative number for each unit; units of low score go first."""
        ...


CRITERIA: dict[str, Callable[..., Criterion]] = {}

_Made = TypeVar("_Made", bound=Callable[..., Criterion])


def criterion(name: str) -> Callable[[_Made], _Made]:
    """Register the class below under `name`."""

    def register(kind: _Made) -> _Made:
        if name in CRITERIA:
            raise ValueError(f"{name!r} is already {CRITERIA[name]!r}.")
        CRITERIA[name] = kind
        return kind

    return register


def make_criterion(name: str, **options: float | str | bool) -> Criterion:
    """Return the criterion called `name`.

    Raises:
        ArgumentError: if there is none of that name; the closest one is named.

    Example:
        >>> import tersor.pruning.criteria
        >>> make_criterion("magnitude", p=1)
        Magnitude(p=1, combine='mean')
    """
    return CRITERIA[one_of("criterion", name, sorted(CRITERIA))](**options)
