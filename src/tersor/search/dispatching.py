"""Where the main thread must not be interrupted: in what torch's dispatcher calls in Python."""

from pathlib import Path
from types import FrameType

#: Seconds after which an interruption that was put off is tried again.
SOON_S = 0.01
_NAMES = {"__torch_dispatch__", "__torch_function__"}
_LIBRARY = str(Path("torch", "_library", "x"))[:-1]


def dispatching(frame: FrameType | None) -> bool:
    """Return whether torch's dispatcher, written in C++, is at work below a frame.

    Some of what it calls in Python must not raise: the process would be aborted. An export spends most of its time
    there, and leaves it between any two operations.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_name in _NAMES or _LIBRARY in code.co_filename:
            return True
        frame = frame.f_back
    return False
