"""A slow step says that it goes on; a quick one says nothing."""

import time

import pytest

from tersor.cli import working as module
from tersor.cli.working import working


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "_SLOW_S", 0.1)


def test_a_slow_step_is_told_once_with_about_how_long_it_takes(quick, capsys):
    with working("measuring", 12.4):
        time.sleep(0.4)
    assert capsys.readouterr().err == "measuring, about 12 s\n"


def test_a_quick_step_says_nothing(quick, capsys):
    with working("measuring", 12.4):
        pass
    time.sleep(0.3)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_clock_is_shown(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with working("mea[sur]ing", 1.0):
        time.sleep(0.6)
    assert "mea[sur]ing, about 1 s" in capsys.readouterr().err
