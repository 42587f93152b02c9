"""The catalogue of range rules."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor

from tersor._check import one_of
from tersor.quantization.grid import QSpec
from tersor.quantization.observer import Samples


class RangeRule(Protocol):
    """Chooses the range that a grid covers."""

    def __call__(self, samples: Samples, spec: QSpec) -> tuple[Tensor, Tensor]:
        """Return `(lo, hi)`, one entry a row of `samples`, inside the sample's extremes."""
        ...


RANGES: dict[str, Callable[[], RangeRule]] = {}

Rule = TypeVar("Rule", bound=Callable[[], RangeRule])


def register(name: str) -> Callable[[Rule], Rule]:
    """Enter a rule in `RANGES`."""

    def enter(rule: Rule) -> Rule:
        RANGES[name] = rule
        return rule

    return enter


def range_rule(name: str) -> RangeRule:
    """Return the rule called `name`, with its default settings.

    Raises:
        ArgumentError: if no rule has this name.
    """
    return RANGES[one_of("ranges", name, RANGES)]()
