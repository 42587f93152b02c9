"""A block that takes too much is stopped, and nothing else is."""

import contextlib
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tersor.search.guard import Exceeded, OutOfMemory, OutOfTime, process_bytes, watched


def rest(held=None):
    while True:
        time.sleep(0.01)
        assert held is None or len(held)


def be_stubborn():
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


@pytest.mark.parametrize("work", [rest, be_stubborn])
def test_a_block_that_takes_too_long_is_stopped_soon_even_where_exceptions_are_swallowed(work):
    begun = time.monotonic()
    with pytest.raises(OutOfTime, match=r"0\.2 s"), watched(0.2):
        work()
    assert time.monotonic() - begun < 5.0


class Slow:
    def __del__(self):
        time.sleep(0.3)


def drop_and_sleep():
    Slow()
    time.sleep(5)


def test_a_strike_that_a_destructor_swallows_is_repeated_without_a_word(capsys):
    hook = sys.unraisablehook
    with pytest.raises(OutOfTime), watched(0.1):
        drop_and_sleep()
    assert sys.unraisablehook is hook
    assert capsys.readouterr().err == ""


class Counted(TorchDispatchMode):
    begun = ended = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.begun += 1
        time.sleep(0.3)
        self.ended += 1
        return func(*args, **(kwargs or {}))


def work_in_dispatch(mode):
    with mode:
        while True:
            torch.zeros(1)
            time.sleep(0.05)


def test_the_strike_waits_for_what_the_dispatcher_called():
    mode = Counted()
    with mode:  # the first operation imports much
        torch.zeros(1)
    with pytest.raises(OutOfTime), watched(0.2):
        work_in_dispatch(mode)
    assert mode.begun == mode.ended > 1


class Broken:
    def __del__(self):
        raise ValueError("mine")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_else_a_destructor_raises_is_reported_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: told.append(str(raised.exc_value)))
    with watched(5.0):
        Broken()
    assert told == ["mine"]


def test_a_block_that_holds_too_much_memory_is_stopped():
    with pytest.raises(OutOfMemory, match=r"where .* MB are allowed"), watched(30.0, process_bytes() + 50e6):
        rest(np.ones(30_000_000))


def test_a_block_within_its_limits_is_left_alone():
    before = threading.active_count()
    with watched(30.0, process_bytes() + 1e9):
        found = sum(range(1000))
    assert found == 499_500
    time.sleep(0.2)
    assert threading.active_count() <= before


def test_in_another_thread_the_block_runs_unwatched():
    caught = []

    def work():
        try:
            with watched(0.05):
                time.sleep(0.2)
            caught.append(None)
        except Exceeded as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == [None]


def test_with_no_time_left_the_guard_strikes_and_leaves_no_handler_behind():
    for _ in range(20):
        with pytest.raises(OutOfTime), watched(0.0):
            time.sleep(5)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
