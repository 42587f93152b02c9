"""What a search says while it runs: one plain event, and whoever listens decides how to show it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        phase: `data`, `baseline`, `candidate`, `training`, `measure`, `certify` or `result`.
        text: plain words.
        done: steps done of a longer phase.
        total: steps of it; 0 where there are none to count.
    """

    phase: str
    text: str
    done: int = 0
    total: int = 0


Listener: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignore `event`; the default listener of the Python interface."""
    del event
