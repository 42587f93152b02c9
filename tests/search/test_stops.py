"""Interruptions: the first ends the making of candidates, none is lost, and none comes in the middle of writing."""

import os
import signal
import time

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tersor.search.stops import Stops


def interrupt():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def said():
    return []


def test_an_interruption_ends_the_making_of_candidates(said):
    with Stops(said.append) as stops:
        with pytest.raises(KeyboardInterrupt), stops.making():
            interrupt()
        assert stops.asked


def test_outside_the_making_the_first_is_said_and_the_second_ends_everything(said):
    with Stops(said.append) as stops:
        interrupt()
        assert stops.asked
        assert len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def interrupted_while_writing(stops, written):
    with stops.making(), stops.held():
        interrupt()
        written.append("whole")


def test_what_is_written_is_written_whole_before_the_interruption_comes(said):
    written = []
    with Stops(said.append) as stops:
        with pytest.raises(KeyboardInterrupt):
            interrupted_while_writing(stops, written)
        assert written == ["whole"]


def interrupted_in_a_clean_up(stops, reported):
    with stops.making():
        try:
            try:
                interrupt()
            finally:
                os.close(-1)
        except OSError:
            reported.append("a fault")
        with stops.held():
            reported.append("the candidate")
        reported.append("the next one")


def test_an_interruption_that_another_error_replaced_comes_back_with_the_next_candidate(said):
    reported = []
    with Stops(said.append) as stops, pytest.raises(KeyboardInterrupt):
        interrupted_in_a_clean_up(stops, reported)
    assert reported == ["a fault", "the candidate"]


class Dispatched(TorchDispatchMode):
    interrupts, ended = False, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.interrupts:
            interrupt()
            time.sleep(0.05)
        self.ended += 1
        return func(*args, **(kwargs or {}))


def interrupted_in_dispatch(stops, mode):
    with stops.making(), mode:
        torch.zeros(1)
        time.sleep(5)


def test_an_interruption_waits_for_what_the_dispatcher_called(said):
    mode = Dispatched()
    with mode:  # the first operation imports much
        torch.zeros(1)
    mode.interrupts = True
    with Stops(said.append) as stops, pytest.raises(KeyboardInterrupt):
        interrupted_in_dispatch(stops, mode)
    assert mode.ended == 2


def test_without_an_interruption_holding_does_nothing(said):
    with Stops(said.append) as stops, stops.making(), stops.held():
        pass
    assert not stops.asked
    assert said == []
