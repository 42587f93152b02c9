"""Time kept back up front, so that a search always ends with a certified result inside its budget."""

import time
from dataclasses import dataclass, field

#: Share of the budget kept for the final measurement, certification and the report.
RESERVE = 0.2


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
        return self.budget_s * (1 - RESERVE) - self.elapsed_s

    def share_s(self, parts: int) -> float | None:
        """Return an equal share of what is left, in seconds, for one of `parts` candidates; None without a budget.

        Example:
            >>> Clock(100.0).share_s(8) <= 10.0
            True
        """
        return None if self.budget_s is None else max(0.0, self.left_s) / max(1, parts)
