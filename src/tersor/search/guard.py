"""A block of work that is stopped when it takes more time or memory than it may."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from types import FrameType
from typing import Any

import psutil

from tersor.search.dispatching import SOON_S, dispatching

#: Seconds between two looks at clock and memory, and after which an order to stop that was lost is repeated.
_LOOK_S, _AGAIN_S = 0.1, 1.0


class Exceeded(BaseException):
    """A block took more than it may; like an interruption, no `except Exception` on the way swallows it."""


class OutOfTime(Exceeded):
    """A block took longer than it may."""


class OutOfMemory(Exceeded):
    """A block held more memory than it may."""


def process_bytes(aside: Collection[int] = ()) -> int:
    """Return the resident memory of this process and of those that it started.

    Args:
        aside: children that do not count, with all that they started.
    """
    waiting, total = [psutil.Process()], 0
    while waiting:
        process = waiting.pop()
        try:
            total += process.memory_info().rss
            waiting += [child for child in process.children() if child.pid not in aside]
        except psutil.NoSuchProcess:
            continue
    return total


@contextmanager
def watched(seconds: float = inf, most_bytes: float = inf, aside: Collection[int] = ()) -> Iterator[None]:
    """Stop the block once it has run for `seconds`, or holds more than `most_bytes`.

    A second thread looks and signals the main thread. Elsewhere than in the main thread, and on systems without such
    signals, the block is not watched.

    Args:
        seconds: time limit.
        most_bytes: limit of the resident memory of this process and of those it started.
        aside: children whose memory does not count.

    Raises:
        OutOfTime: after the operation under way has ended.
        OutOfMemory: likewise.

    Example:
        >>> try:
        ...     with watched(0.2):
        ...         time.sleep(5)
        ... except OutOfTime as reason:
        ...     print(reason)
        took longer than the 0.2 s that were left
    """
    able = os.name == "posix" and threading.current_thread() is threading.main_thread()
    if not able or (seconds == inf and most_bytes == inf):
        yield
        return
    watch = _Watch(seconds, most_bytes, aside)
    before = signal.signal(signal.SIGUSR1, watch.strike)
    unraisable = sys.unraisablehook
    sys.unraisablehook = partial(_without_strikes, unraisable)
    try:
        try:
            # Inside, because with no time left the first strike comes while the thread starts.
            watch.start()
            yield
        finally:
            watch.over.set()
    finally:  # also where the strike came during the line above
        watch.over.set()
        watch.join()
        signal.signal(signal.SIGUSR1, before)
        sys.unraisablehook = unraisable


def _without_strikes(report: Callable[[Any], object], swallowed: Any) -> None:
    """Report what Python swallowed in a destructor or a callback; not a strike, which is repeated."""
    if not isinstance(swallowed.exc_value, Exceeded):
        report(swallowed)


class _Watch(threading.Thread):
    """Looks at clock and memory until the block is over."""

    def __init__(self, seconds: float, most_bytes: float, aside: Collection[int]) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.struck_s = -inf
        self.seconds, self.most_bytes, self.aside = seconds, most_bytes, aside
        self.end = time.monotonic() + seconds
        self.excess: Exceeded | None = None

    def run(self) -> None:
        """Wait for a limit to be passed, then signal until the block is over."""
        pause = min(_LOOK_S, self.seconds)
        while not self.over.wait(pause):
            self.excess = self.excess or self._look()
            if self.excess:
                pause = SOON_S
                if time.monotonic() - self.struck_s > _AGAIN_S:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def strike(self, number: int, frame: FrameType | None) -> None:
        """Stop the block, unless torch's dispatcher is at work; runs in the main thread."""
        del number
        if self.excess is not None and not self.over.is_set() and not dispatching(frame):
            self.struck_s = time.monotonic()
            raise self.excess

    def _look(self) -> Exceeded | None:
        if time.monotonic() > self.end:
            return OutOfTime(f"took longer than the {self.seconds:.3g} s that were left")
        held = process_bytes(self.aside) if self.most_bytes < inf else 0
        if held > self.most_bytes:
            allowed = f"where {self.most_bytes / 1e6:,.0f} MB are allowed"
            return OutOfMemory(f"needed {held / 1e6:,.0f} MB of memory, {allowed}")
        return None
