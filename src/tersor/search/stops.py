"""What an interruption does: the first one ends the making of candidates, the second one ends everything."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stops:
    """Handles Ctrl-C and SIGTERM alike; a context manager, which does nothing outside the main thread.

    Args:
        say: told in words what an interruption leads to.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.asked = False
        self._making = False
        self._before: dict[int, signal.Handlers | int | Callable[..., object] | None] = {}

    def __enter__(self) -> "Stops":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def making(self) -> Iterator[None]:
        """Within the block an interruption raises `KeyboardInterrupt`; `asked` then says that there was one."""
        self._making = True
        try:
            yield
        except KeyboardInterrupt:
            self.asked = True
            raise
        finally:
            self._making = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._making or self.asked:
            self._making = False
            raise KeyboardInterrupt
        self.asked = True
        self.say("stop asked for; finishing what is under way (once more to stop at once)")
