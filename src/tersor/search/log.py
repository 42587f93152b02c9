"""The log of a search: everything it says, written down with the time since its start."""

from dataclasses import dataclass
from pathlib import Path

from tersor.search.clock import Clock
from tersor.search.events import Event, Listener

#: File in the folder of a search, and in what it leaves behind.
LOG = "log.txt"


@dataclass(slots=True)
class Log:
    """A listener that writes down what it passes on; counted steps are not written.

    Attributes:
        listen: whom it passes events on to.
        clock: time of the search.
        path: the file.
    """

    listen: Listener
    clock: Clock
    path: Path

    def __call__(self, event: Event) -> None:
        """Pass `event` on and write it down."""
        self.listen(event)
        if event.total:
            return
        self.note(f"{event.phase:<10}{event.text}")

    def note(self, text: str) -> None:
        """Write `text` down without saying it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{self.clock.elapsed_s:9.1f} s  {text}\n")
