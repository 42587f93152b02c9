"""Wrong uses, each answered by one clear sentence that says what to do, with nothing written."""

import numpy as np
import pytest

from tersor.cli.app import run

MODEL = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

def wide():
    return nn.Linear(99, 3)

class Broken(nn.Module):
    def forward(self, x):
        raise ValueError("no such road")

def broken():
    return Broken()

number = 3
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3000, 16)).astype("float32"), rng.integers(0, 3, 3000)
    (tmp_path / "net.py").write_text(MODEL)
    np.savez(tmp_path / "good.npz", x=x, y=y)
    np.savez(tmp_path / "few.npz", x=x[:60], y=y[:60])
    np.savez(tmp_path / "labels.npz", x=x, y=y + 40)
    np.savez(tmp_path / "nan.npz", x=np.where(x > 3, np.nan, x), y=y)
    np.savez(tmp_path / "empty.npz", x=x[:0], y=y[:0])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    monkeypatch.chdir(tmp_path)
    return tmp_path


WRONG = {
    "the model's module does not import": ("nowhere:build", "npz:good.npz", "1%", (), "nowhere"),
    "the module has no such function": ("net.py:bild", "npz:good.npz", "1%", (), "build"),
    "the reference is no module": ("net.py:number", "npz:good.npz", "1%", (), "Module"),
    "the reference has no clear reading": ("resnet", "npz:good.npz", "1%", (), "module:"),
    "the model fails on the data": ("net.py:broken", "npz:good.npz", "1%", (), "no such road"),
    "the model wants another shape": ("net.py:wide", "npz:good.npz", "1%", (), "99"),
    "labels are out of range": ("net.py:build", "npz:labels.npz", "1%", (), "label"),
    "the data holds NaN": ("net.py:build", "npz:nan.npz", "1%", (), "NaN"),
    "the data is empty": ("net.py:build", "npz:empty.npz", "1%", (), "empty"),
    "the data is not there": ("net.py:build", "npz:missing.npz", "1%", (), "missing.npz"),
    "the data has no known form": ("net.py:build", "good", "1%", (), "npz:"),
    "too few samples for the margin": ("net.py:build", "npz:few.npz", "0.01", (), "it takes"),
    "an unknown metric": ("net.py:build", "npz:good.npz", "1%", ("--metric", "acuracy"), "accuracy"),
    "an unknown goal": ("net.py:build", "npz:good.npz", "1%", ("--goal", "latncy"), "latency"),
    "an unknown target": ("net.py:build", "npz:good.npz", "1%", ("--target", "onnx"), "onnxruntime"),
    "an unknown method": ("net.py:build", "npz:good.npz", "1%", ("--methods", "shrink"), "prune"),
    "a drop that is no number": ("net.py:build", "npz:good.npz", "much", (), "1%"),
    "a drop above everything": ("net.py:build", "npz:good.npz", "150%", (), "drop"),
    "a negative drop": ("net.py:build", "npz:good.npz", "-0.1", (), "drop"),
    "a budget that is no time": ("net.py:build", "npz:good.npz", "1%", ("--budget", "soon"), "30m"),
    "a confidence of one": ("net.py:build", "npz:good.npz", "1%", ("--confidence", "95"), "0.95"),
    "an output folder of somebody else": ("net.py:build", "npz:good.npz", "1%", ("-o", "notes"), "notes"),
    "an output folder without a parent": ("net.py:build", "npz:good.npz", "1%", ("-o", "a/b/c"), "exist"),
    "weights that are not there": (
        "net.py:build",
        "npz:good.npz",
        "1%",
        ("--weights", "w.safetensors"),
        "w.safetensors",
    ),
    "a model argument without a value": (
        "net.py:build",
        "npz:good.npz",
        "1%",
        ("--model-arg", "width"),
        "name=value",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_wrong_use_is_answered_by_one_sentence_and_writes_nothing(case, place, capsys):
    model, data, drop, more, expected = WRONG[case]
    before = sorted(path.name for path in place.rglob("*") if "__pycache__" not in str(path))
    status = run(["optimize", model, f"--data={data}", f"--max-drop={drop}", *more])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tersor: ")]
    assert status in (1, 2)
    assert len(said) == 1, said
    assert expected in said[0]
    assert "Traceback" not in said[0]
    assert sorted(path.name for path in place.rglob("*") if "__pycache__" not in str(path)) == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["optimise", "x"], "optimize"),
        (["optimize", "net.py:build", "--data", "npz:good.npz"], "max-drop"),
        (
            ["optimize", "net.py:build", "--data", "npz:good.npz", "--max-drop", "1%", "--bugdet", "3m"],
            "budget",
        ),
        (["optimize", "net.py:build", "--data", "x", "--max-drop", "1%", "--threads", "two"], "threads"),
    ],
)
def test_a_typo_on_the_command_line_is_a_usage_error(words, expected, place, capsys):
    assert run(words) == 2
    shown = capsys.readouterr()
    assert expected in (shown.err + shown.out).lower()
