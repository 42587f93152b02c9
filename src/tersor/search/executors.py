"""Where the model work of candidates is done: in this process, or on a Ray cluster."""

from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol, TypeVar

from tersor.loading.task import Task
from tersor.search.cluster import Cluster

T = TypeVar("T")


class Executor(Protocol):
    """Does pieces of work that do not depend on one another."""

    @property
    def processes(self) -> frozenset[int]:
        """Processes that were started for it, whose memory is not that of the search."""
        ...

    def begin(
        self, work: Sequence[Callable[[], T]], *, seconds: float = inf, most_bytes: float = inf
    ) -> list[Callable[[], T]]:
        """Begin each piece of `work`; return, in its order, how to wait for the result of each.

        Args:
            work: calls without arguments.
            seconds: time that each may take.
            most_bytes: resident memory of the process that does it.
        """
        ...

    def close(self) -> None:
        """Give up what was begun and not waited for, and whatever was started for it."""
        ...


class Local:
    """Does each piece in this process, when its result is asked for; the caller watches time and memory.

    Example:
        >>> first, second = Local().begin([lambda: 1, lambda: 2])
        >>> first(), second()
        (1, 2)
    """

    processes: frozenset[int] = frozenset()

    def begin(
        self, work: Sequence[Callable[[], T]], *, seconds: float = inf, most_bytes: float = inf
    ) -> list[Callable[[], T]]:
        """Return `work` itself; see `Executor.begin`."""
        del seconds, most_bytes
        return list(work)

    def close(self) -> None:
        """Do nothing: nothing was begun."""


#: Word of the request -> what does the work of a task.
EXECUTORS: dict[str, Callable[[Task], Executor]] = {"local": lambda _: Local(), "ray": Cluster}
