"""What every command has: quick help, suggestions, JSON, completion, words from files and the environment."""

import json
import subprocess
import sys
import time
import tomllib

import numpy as np
import pytest

from tersor.cli.app import COMMANDS, build_app, run
from tersor.cli.config import as_toml

MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    (tmp_path / "net.py").write_text(MODEL)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(3000, 16)).astype("float32"), y=rng.integers(0, 3, 3000))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_imports_neither_torch_nor_a_runtime_and_is_quick():
    code = (
        "import sys; from tersor.cli.app import run; run(sys.argv[1:]);"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'altair', 'scipy'} & set(sys.modules); sys.exit(bool(heavy))"
    )

    def seconds(*command):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, *command], capture_output=True, check=False)
        return time.perf_counter() - start, done.returncode

    for words in (["--help"], ["optimize", "--help"], ["doctor", "--help"]):
        taken, status = seconds("-c", code, *words)
        assert status == 0, words
        # Against an interpreter that imports the two libraries of the command line, so that load cancels out.
        bare, _ = seconds("-c", "import cyclopts, rich.console, rich.panel, rich.table")
        assert taken < 5 * bare + 0.2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name, capsys):
    assert run([name, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Usage: tersor {name}" in shown
    target = COMMANDS[name][0].partition(":")
    function = getattr(__import__(target[0], fromlist=["x"]), target[2])
    if name in (
        "optimize",
        "resume",
        "train",
        "distill",
    ):  # their help says how they are called in its first lines
        return
    assert f"For example, `tersor {name}" in function.__doc__


@pytest.mark.parametrize("wrong", ["optimise", "inspct", "docter", "quantise", "exprt", "comapre"])
def test_a_mistyped_command_is_answered_by_the_closest(wrong, capsys):
    assert run([wrong]) == 2
    shown = capsys.readouterr()
    assert "did you mean" in (shown.err + shown.out).lower()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell, capsys):
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)


def test_words_come_from_the_line_then_the_environment_then_the_file(place, monkeypatch, capsys):
    (place / "run.toml").write_text('[eval]\nmodel = "net.py:build"\ndata = "npz:d.npz"\nsplit = "train"\n')
    assert run(["eval", "--config", "run.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["split"] == "train"
    monkeypatch.setenv("TERSOR_EVAL_SPLIT", "calibration")
    assert run(["eval", "--config=run.toml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["split"] == "calibration"
    assert run(["eval", "--config", "run.toml", "--json", "--split", "search"]) == 0
    assert json.loads(capsys.readouterr().out)["split"] == "search"


def test_the_words_of_a_call_written_as_toml_make_the_same_call(place):
    words = [
        "optimize",
        "net.py:build",
        "--data",
        "npz:d.npz",
        "--max-drop",
        "1%",
        "--leave",
        "a",
        "--leave",
        "b",
    ]
    command, bound, _ = build_app().parse_args([*words, "--budget", "3m", "-o", 'od"d'])
    (place / "run.toml").write_text(as_toml("optimize", bound))
    assert tomllib.loads((place / "run.toml").read_text())["optimize"]["leave"] == ["a", "b"]
    again = build_app(place / "run.toml").parse_args(["optimize"])
    assert again[0] is command
    for call in (again[1], bound):
        call.apply_defaults()
    assert again[1].arguments == bound.arguments
    assert tomllib.loads((place / "run.toml").read_text())["optimize"]["confidence"] == 0.95


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[eval\n", "not TOML"),
        ("[evla]\n", "Did you mean 'eval'"),
        ("eval = 3\n", "one table a command"),
    ],
)
def test_a_damaged_configuration_is_a_usage_error(text, expected, place, capsys):
    (place / "run.toml").write_text(text)
    assert run(["eval", "--config", "run.toml"]) == 2
    assert expected in capsys.readouterr().err


def test_an_unknown_word_in_a_configuration_is_a_usage_error(place, capsys):
    (place / "run.toml").write_text('[eval]\nmodle = "net.py:build"\n')
    assert run(["eval", "net.py:build", "--data", "npz:d.npz", "--config", "run.toml"]) == 2
    shown = capsys.readouterr()
    assert "modle" in shown.err + shown.out


def test_a_configuration_from_elsewhere_may_not_name_code(place, monkeypatch, capsys):
    (place / "run.toml").write_text('[eval]\nmodel = "net.py:build"\ndata = "npz:d.npz"\n')
    (place / "other").mkdir()
    monkeypatch.chdir(place / "other")
    assert run(["eval", "--config", "../run.toml"]) == 2
    said = capsys.readouterr().err
    assert "net.py:build" in said
    assert "--allow-code-execution" in said
