"""Wrong uses, each answered by one clear sentence that says what to do, with nothing written."""

import time

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
    np.savez(tmp_path / "bare.npz", x=x)
    np.savez(tmp_path / "few.npz", x=x[:60], y=y[:60])
    np.savez(tmp_path / "labels.npz", x=x, y=y + 40)
    np.savez(tmp_path / "nan.npz", x=np.where(x > 3, np.nan, x), y=y)
    np.savez(tmp_path / "empty.npz", x=x[:0], y=y[:0])
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
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
    "an absolute drop above everything": ("net.py:build", "npz:good.npz", "1.5", (), "drop"),
    "a negative drop": ("net.py:build", "npz:good.npz", "-0.1", (), "drop"),
    "a budget that is no time": ("net.py:build", "npz:good.npz", "1%", ("--budget", "soon"), "30m"),
    "a confidence of one": ("net.py:build", "npz:good.npz", "1%", ("--confidence", "95"), "0.95"),
    "an output folder of somebody else": ("net.py:build", "npz:good.npz", "1%", ("-o", "notes"), "notes"),
    "an output folder without a parent": ("net.py:build", "npz:good.npz", "1%", ("-o", "a/b/c"), "exist"),
    "a limit without a unit": ("net.py:build", "npz:good.npz", "1%", ("--limit", "size=1"), "1MB"),
    "a limit of something else": ("net.py:build", "npz:good.npz", "1%", ("--limit", "sice=1MB"), "size"),
    "a pattern that matches nothing": (
        "net.py:build",
        "npz:good.npz",
        "1%",
        ("--leave", "conv*"),
        "matches nothing",
    ),
    "a step budget of none": ("net.py:build", "npz:good.npz", "1%", ("--max-candidates", "0"), "positive"),
    "an amount of memory without a unit": (
        "net.py:build",
        "npz:good.npz",
        "1%",
        ("--max-memory", "x"),
        "2GB",
    ),
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


#: Wrong uses of the other commands: the words, and what the one sentence has to say.
ELSEWHERE = {
    "evaluating a file that is not there": (("eval", "gone.onnx", "--data=npz:good.npz"), "gone.onnx"),
    "evaluating a damaged file": (("eval", "broken.onnx", "--data=npz:good.npz"), "damaged"),
    "evaluating a file that is a pickle": (("eval", "w.pt", "--data=npz:good.npz"), "--weights"),
    "evaluating with an unknown metric": (
        ("eval", "net.py:build", "--data=npz:good.npz", "--metric", "f2"), "f1",
    ),
    "comparing with a file that is not there": (("compare", "gone.onnx", "gone.onnx"), "gone.onnx"),
    "exporting without anything to run on": (("export", "net.py:build"), "--input 2x3x224x224"),
    "exporting to an unknown runtime": (
        ("export", "net.py:build", "--to", "onnxrumtime", "--input", "2x16"), "onnxruntime",
    ),
    "a shape that is none": (("export", "net.py:build", "--input", "2xwide"), "SHAPE"),
    "a shape with a zero": (("export", "net.py:build", "--input", "0x16"), "positive"),
    "an input that does not fit": (("export", "net.py:build", "--input", "2x99"), "shapes"),
    "an output that is taken": (
        ("export", "net.py:build", "--input", "2x16", "-o", "broken.onnx"), "exists",
    ),
    "exporting a graph of OpenVINO": (("export", "m.xml", "--input", "2x16"), "already"),
    "exporting to Keras what never was there": (
        ("export", "net.py:build", "--to", "keras"), "did not come from a Keras model",
    ),
    "verifying a file": (("verify", "net.py"), "is a file"),
    "verifying somebody else's folder": (("verify", "notes"), "holds none"),
    "going on with what never began": (("resume", "notes"), "tersor optimize"),
    "training on data without labels": (("train", "net.py:build", "--data=npz:bare.npz"), "labels"),
    "training by an unknown optimizer": (
        ("train", "net.py:build", "--data=npz:good.npz", "--optimizer", "adamm"), "adamw",
    ),
    "exporting a damaged file": (("export", "broken.onnx", "--input", "2x16"), "broken.onnx"),
    "pruning by per cents": (
        ("prune", "net.py:build", "--ratio", "50", "--input", "2x16"), "pass 0.5",
    ),
    "pruning by an unknown criterion": (
        ("prune", "net.py:build", "--ratio", "0.5", "--input", "2x16", "--criterion", "magnitud"), "magnitude",
    ),
    "quantizing on data that is not there": (("quantize", "net.py:build", "--data=npz:gone.npz"), "gone.npz"),
    "data and a shape at once": (
        ("groups", "net.py:build", "--data=npz:good.npz", "--input", "2x16"), "either",
    ),
    "inspecting what is not there": (("inspect", "gone.pt"), "gone.pt"),
    "inspecting an unknown kind": (("inspect", "notes/diary.txt"), ".safetensors"),
    "a report of somebody else's folder": (("report", "notes"), "tersor wrote"),
    "an index over nothing": (("index",), "tersor index runs"),
    "an index over somebody else's folder": (("index", "notes"), "output folders"),
    "a tracker that does not exist": (("doctor", "--track", "tensorbord:runs"), "tensorboard"),
    "a tracker without a place": (("doctor", "--track", "tensorboard"), "tensorboard:runs"),
    "a configuration that is not there": (("eval", "--config", "gone.toml"), "gone.toml"),
}  # fmt: skip


def answered(words, expected, place, capsys):
    """Run a wrong use, and check that one sentence answers it, soon, with nothing written."""
    before = sorted(path.name for path in place.rglob("*") if "__pycache__" not in str(path))
    started = time.process_time()
    status = run([*words])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tersor: ")]
    assert status in (1, 2)
    assert len(said) == 1, said
    assert expected in said[0]
    assert "Traceback" not in said[0]
    assert time.process_time() - started < 5.0
    assert sorted(path.name for path in place.rglob("*") if "__pycache__" not in str(path)) == before


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_wrong_use_is_answered_by_one_sentence_and_writes_nothing(case, place, capsys):
    model, data, drop, more, expected = WRONG[case]
    answered(["optimize", model, f"--data={data}", f"--max-drop={drop}", *more], expected, place, capsys)


@pytest.mark.parametrize("case", ELSEWHERE, ids=str)
def test_wrong_use_of_other_commands_is_answered_likewise(case, place, capsys):
    words, expected = ELSEWHERE[case]
    answered(words, expected, place, capsys)


def test_there_are_thirty_wrong_uses_and_more():
    assert len(WRONG) + len(ELSEWHERE) >= 30


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


def test_a_dry_run_says_what_would_be_tried_and_certified_and_writes_nothing(place, capsys):
    before = sorted(place.iterdir())
    words = [
        "optimize",
        "net.py:build",
        "--data=npz:good.npz",
        "--max-drop=1%",
        "--dry-run",
        "--limit=size=1MB",
    ]
    assert run([*words, "--methods=quantize", "--leave=1"]) == 0
    said = capsys.readouterr().out
    for expected in (
        "method  prune: not asked for",
        "method  quantize: 1 layer",
        "limit   size <= 1 MB",
        "sealed ",
        "time ",
    ):
        assert expected in said, said
    assert "leave   1 layers as asked: 1" in said
    assert sorted(p for p in place.iterdir() if p.name != "__pycache__") == before
