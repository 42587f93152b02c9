"""How a search ends, and how each candidate ends: results, not exceptions. The value is the advice shown."""

from enum import Enum


class Outcome(Enum):
    """The end of a search."""

    IMPROVED = "A better model holds the limit and is certified."
    NOTHING_HELD = (
        "No better model could be certified within the limit. Allow a larger drop, give more certification samples, "
        "or give more time for recovery; the closest miss is in `closest/`."
    )
    NOTHING_BETTER = (
        "The limit held, but nothing was measured better than the original in its best runtime. Use the original as "
        "exported here; a larger drop will not help, a different target or batch size may."
    )
    NOTHING_FITS = (
        "No model that holds the accuracy meets every limit of size, latency and memory. Raise the limit that the "
        "report names, allow a larger drop, or give more time; the original is exported here."
    )
    OUT_OF_TIME = (
        "Nothing better was found before the time for candidates was up. Give a larger `budget`; the original is "
        "exported here."
    )
    INTERRUPTED = "Stopped before the end; this is the best certified result so far."

    @property
    def exit_code(self) -> int:
        """Exit status of the command line."""
        return {Outcome.IMPROVED: 0, Outcome.INTERRUPTED: 130}.get(self, 3)


class Fate(Enum):
    """What became of a candidate."""

    CERTIFIED = "certified on the sealed data"
    REFUSED = "tested on the sealed data and refused"
    UNTESTED = "not tested: a safer finalist was refused first, or it is not on the front"
    MISSED = "misses the limit on the search data"
    NOT_BETTER = "holds the limit on the search data, but is not better than the baseline"
    OVER_LIMIT = "holds the accuracy, but exceeds a limit that was asked for"
    DOMINATED = "another candidate is at least as good in both respects"
    FAILED = "could not be built, exported or run"
