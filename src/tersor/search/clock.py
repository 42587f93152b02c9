"""Time kept back up front, so that a search always ends with a certified result inside its budget."""

import time
from dataclasses import dataclass, field

#: Share of the budget kept for the final measurement, certification and the report; at least the seconds that these
#: take for a small model, though never more than half.
_SHARE, _LEAST_S, _MOST = 0.2, 45.0, 0.5


@dataclass(frozen=True, slots=True)
class Clock:
    """The time of one search.

    Attributes:
        budget_s: seconds that the search may take; None for as long as the default effort needs.
        start_s: monotonic time at which it began.
    """

    budget_s: float | None = None
    start_s: float = field(default_factory=time.monotonic)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start_s

    @property
    def left_s(self) -> float:
        """Seconds left for candidates, without the reserve; infinite without a budget."""
        if self.budget_s is None:
            return float("inf")
        reserve = max(_SHARE * self.budget_s, min(_LEAST_S, _MOST * self.budget_s))
        return self.budget_s - reserve - self.elapsed_s

    def share_s(self, parts: int) -> float | None:
        """Return an equal share of what is left, in seconds, for one of `parts` candidates; None without a budget.

        Example:
            >>> Clock(1000.0).share_s(8) <= 100.0
            True
        """
        return None if self.budget_s is None else max(0.0, self.left_s) / max(1, parts)
