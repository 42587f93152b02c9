"""Saying that a step without counted parts is going on, and about how long it takes."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

#: Seconds after which a step counts as slow enough to be told of where no terminal shows a clock.
_SLOW_S = 2.0


@contextmanager
def working(text: str, about_s: float | None = None) -> Iterator[None]:
    """Show `text` while the block runs.

    On a terminal it is a line with a clock, and a bar where about how long it takes is known. Elsewhere it is one plain
    line on standard error, if the block takes longer than two seconds.

    Args:
        text: what is going on.
        about_s: about how many seconds it takes.
    """
    console = Console(stderr=True, highlight=False)
    told = text if about_s is None else f"{text}, about {about_s:.0f} s"
    if not console.is_terminal:
        timer = threading.Timer(_SLOW_S, lambda: sys.stderr.write(f"{told}\n"))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(told), total=about_s)
        done = threading.Event()
        threading.Thread(target=_tick, args=(progress, task, about_s, done), daemon=True).start()
        try:
            yield
        finally:
            done.set()


def _tick(progress: Progress, task: TaskID, about_s: float | None, done: threading.Event) -> None:
    """Move the bar with the time; it waits just before its end for the step to end."""
    passed = 0.0
    while not done.wait(0.25):
        passed += 0.25
        if about_s is not None:
            progress.update(task, completed=min(passed, 0.98 * about_s))
