"""What an interruption does: the first one ends the making of candidates, the second one ends everything."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tersor.search.dispatching import SOON_S, dispatching

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stops:
    """Handles Ctrl-C and SIGTERM alike; a context manager, which does nothing outside the main thread.

    Args:
        say: told in words what an interruption leads to.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.asked = False
        self._making = self._held = self._waiting = False
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

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block an interruption waits for its end, so that what is written there is written whole.

        Raises:
            KeyboardInterrupt: at the end, if there was one in the block, or an earlier one was lost: raised in the
                middle of someone's clean-up, it can be replaced by another error, which is then taken for a fault.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._waiting or (self._making and self.asked):
            self._making = self._waiting = False
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if dispatching(frame):
            threading.Timer(SOON_S, signal.raise_signal, (number,)).start()
            return
        again, self.asked = self.asked, True
        if self._held:
            self._waiting = True
        elif self._making or again:
            raise KeyboardInterrupt
        else:
            self.say("stop asked for; finishing what is under way (once more to stop at once)")
