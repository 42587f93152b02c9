"""Showing a search: a live line with rich on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tersor.cli.trackers import trackers
from tersor.search.events import Event


class Display:
    """Listens to a search; use it as a context manager and pass it as `on_event`.

    On a terminal, counted phases are a bar with the time that remains and finished lines scroll above it. Elsewhere
    every message is one plain line on standard error, and counted phases print at most every five seconds.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal and not quiet
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.tasks: dict[str, TaskID] = {}
        self.last_s = 0.0
        self.began: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> "Display":
        if self.live:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.bar.stop()

    def __call__(self, event: Event) -> None:
        """Show one event, and hand it to the trackers."""
        for tracker in trackers():
            tracker(event)
        if self.quiet:
            return
        if event.total:
            self._count(event)
        else:
            self._line(event)

    def _line(self, event: Event) -> None:
        text = f"{event.phase:<10} {event.text}"
        if self.live:
            self.console.print(escape(text))
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def _count(self, event: Event) -> None:
        key = f"{event.phase}:{event.text}"
        if not self.live:
            now_s, finished = time.monotonic(), event.done == event.total
            began_s, first = self.began.setdefault(key, (now_s, event.done))
            if finished or now_s - self.last_s > 5.0:
                self.last_s = now_s
                left = remaining(now_s - began_s, event.done - first, event.total - event.done)
                self._line(Event(event.phase, f"{event.text}: {event.done}/{event.total}{left}"))
            if finished:
                del self.began[key]
            return
        if key not in self.tasks:
            self.tasks[key] = self.bar.add_task(escape(f"{event.phase:<10} {event.text}"), total=event.total)
        self.bar.update(self.tasks[key], completed=event.done)
        if event.done >= event.total:
            self.bar.remove_task(self.tasks.pop(key))


def remaining(elapsed_s: float, done: int, left: int) -> str:
    """Return the time that is left, in words to append; empty where nothing can be said.

    Example:
        >>> remaining(10.0, 100, 600), remaining(60.0, 1, 90), remaining(1.0, 0, 5)
        (', 1 min left', ', 1.5 h left', '')
    """
    if done == 0 or left == 0:
        return ""
    seconds = elapsed_s / done * left
    if seconds < 60:
        return f", {seconds:.0f} s left"
    return f", {seconds / 60:.0f} min left" if seconds < 3600 else f", {seconds / 3600:.1f} h left"
