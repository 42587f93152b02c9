"""Time kept back up front, so that a search always ends with a certified result inside its budget."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: Share of the budget kept for the final measurement, certification and the report before their cost is known; at
#: least the seconds that these take for a small model, though never more than half.
_SHARE, _LEAST_S, _MOST = 0.2, 30.0, 0.5


@dataclass(slots=True)
class Clock:
    """The time of one search.

    Attributes:
        budget_s: seconds that the search may take; None for as long as the default effort needs.
        start_s: monotonic time at which it began.
        reserve_s: seconds that the end of the search will take; None until that is known.
    """

    budget_s: float | None = None
    start_s: float = field(default_factory=time.monotonic)
    reserve_s: float | None = None

    def __reduce__(self) -> "tuple[Callable[..., Clock], tuple[float | None, float, float | None]]":
        # Monotonic time is that of one machine, so what travels to another is the time that has passed.
        return _going_on, (self.budget_s, self.elapsed_s, self.reserve_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start_s

    @property
    def remaining_s(self) -> float:
        """Seconds until the budget ends; infinite without one."""
        return float("inf") if self.budget_s is None else self.budget_s - self.elapsed_s

    @property
    def left_s(self) -> float:
        """Seconds left for candidates, without the reserve; infinite without a budget.

        Example:
            >>> 69 < Clock(100.0).left_s <= 70
            True
        """
        if self.budget_s is None:
            return float("inf")
        guess = max(_SHARE * self.budget_s, min(_LEAST_S, _MOST * self.budget_s))
        return self.remaining_s - (guess if self.reserve_s is None else self.reserve_s)


def _going_on(budget_s: float | None, elapsed_s: float, reserve_s: float | None) -> Clock:
    return Clock(budget_s, time.monotonic() - elapsed_s, reserve_s)
