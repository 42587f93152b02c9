"""`tersor train` and `tersor distill` as a user runs them."""

import json
import multiprocessing
import random
import signal
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from tersor.cli.app import run
from tersor.loading.model import load_model

DIGITS = "tersor.cli.digits:ConvNet"
SMALL = ["--model-arg", "width=8", "--data", "sklearn:digits"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)


def test_a_network_is_trained_from_scratch_and_its_weights_are_read_back(tmp_path, capsys):
    assert run(["train", DIGITS, *SMALL, "--epochs", "6", "-o", "out"]) == 0
    shown = capsys.readouterr()
    assert "accuracy on the search split" in shown.out
    assert "because" in shown.out
    assert f"tersor optimize {DIGITS} --model-arg width=8 --weights" in shown.out
    report = json.loads((tmp_path / "out" / "training.json").read_text())
    assert report["score"] > 0.9
    model = load_model(DIGITS, weights="out/model.safetensors", arguments={"width": 8})
    assert not (tmp_path / "out" / "run").exists()
    assert set(model.state_dict()) == set(load_file("out/model.safetensors"))


def test_trained_weights_move_to_other_classes(tmp_path, capsys):
    import numpy as np

    from tersor.cli.digits import load_digits

    images, digits = load_digits()
    np.savez("parity.npz", x=images, y=(digits % 2))
    assert run(["train", DIGITS, *SMALL, "--epochs", "3", "-o", "ten"]) == 0
    words = ["--model-arg", "width=8", "--data", "npz:parity.npz", "--weights", "ten/model.safetensors"]
    transfer = ["--new-head", "2", "--head-epochs", "1", "--layer-decay", "0.8", "--average", "0.9"]
    assert run(["train", DIGITS, *words, *transfer, "--epochs", "4", "-o", "two"]) == 0
    assert json.loads((tmp_path / "two" / "training.json").read_text())["score"] > 0.8
    built = load_model("two/model.py:build", weights="two/model.safetensors")
    assert built(torch.zeros(2, 1, 8, 8)).shape == (2, 2)
    capsys.readouterr()


def test_a_student_cut_from_the_teacher_is_rebuilt_by_its_file(tmp_path, capsys):
    assert run(["train", DIGITS, *SMALL, "--epochs", "5", "-o", "teacher"]) == 0
    weights = ["--weights", "teacher/model.safetensors"]
    assert (
        run(["distill", DIGITS, *SMALL, *weights, "--student-ratio", "0.5", "--epochs", "5", "-o", "s"]) == 0
    )
    teacher = json.loads((tmp_path / "teacher" / "training.json").read_text())
    student = json.loads((tmp_path / "s" / "training.json").read_text())
    assert student["score"] > teacher["score"] - 0.3
    built = load_model("s/model.py:build")
    size = sum(p.numel() for p in built.parameters())
    assert size < 0.8 * sum(p.numel() for p in load_model(DIGITS, arguments={"width": 8}).parameters())
    stored = load_file("s/model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in built.state_dict().items())
    assert "model.py:build" in capsys.readouterr().out


def test_a_student_of_its_own_is_named(capsys):
    assert run(["train", DIGITS, *SMALL, "--epochs", "4", "-o", "t"]) == 0
    words = [DIGITS, "tersor.cli.digits:Perceptron", *SMALL, "--weights", "t/model.safetensors"]
    assert run(["distill", *words, "--epochs", "2", "--optimizer", "adamw", "-o", "p", "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown[shown.index("{") :])["score"] > 0.6


LONG = ["train", DIGITS, *SMALL, "--epochs", "7", "--average", "0.95", "--batch", "16"]


def started(*more):
    child = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(run([*LONG, *more])))
    child.start()
    return child


def wait_for_a_snapshot(child, state):
    """Return once the process has written its next snapshot, or ended."""
    seen = state.stat().st_mtime_ns if state.exists() else 0
    while child.is_alive() and (not state.exists() or state.stat().st_mtime_ns == seen):
        time.sleep(0.01)


def test_killed_runs_resume_to_the_same_bits(tmp_path, capsys):
    moments, state = random.Random(0), tmp_path / "killed" / "run" / "training.safetensors"
    for _ in range(3):
        child = started("-o", "killed", "--resume")
        wait_for_a_snapshot(child, state)
        time.sleep(moments.uniform(0, 0.1))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    for words in (("-o", "killed", "--resume"), ("-o", "whole")):
        child = started(*words)
        child.join()
        assert child.exitcode == 0
    first, second = load_file("killed/model.safetensors"), load_file("whole/model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in second)
    reports = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("killed", "whole")]
    assert reports[0]["losses"] == reports[1]["losses"]
    assert run(["train", DIGITS, *SMALL, "-o", "killed", "--resume"]) == 2
    assert "has ended" in capsys.readouterr().err


WRONG = {
    "both a student and a ratio": (
        ["distill", DIGITS, DIGITS, *SMALL, "--student-ratio", "0.5"],
        "one of the two",
    ),
    "no student": (["distill", DIGITS, *SMALL], "Name a student"),
    "another shape": (["distill", DIGITS, "torch.nn:Flatten", *SMALL], "one shape"),
    "a ratio in per cent": (["distill", DIGITS, *SMALL, "--student-ratio", "50"], "pass 0.5"),
    "an unknown optimizer": (["train", DIGITS, *SMALL, "--optimizer", "adamv"], "adamw"),
    "a negative rate": (["train", DIGITS, *SMALL, "--lr", "-1"], "`lr`"),
    "no passes": (["train", DIGITS, *SMALL, "--epochs", "0"], "`epochs`"),
    "a budget that is no time": (["train", DIGITS, *SMALL, "--budget", "soon"], "30m"),
    "a decay that grows": (["train", DIGITS, *SMALL, "--layer-decay", "1.5"], "layer_decay"),
    "a head of nothing": (["train", DIGITS, *SMALL, "--new-head", "0"], "`classes`"),
    "too few outputs": (["train", DIGITS, *SMALL, "--new-head", "3"], "out of range"),
    "an unknown loss": (["train", DIGITS, *SMALL, "--loss", "crossentropy"], "cross_entropy"),
    "a folder of somebody else": (["train", DIGITS, *SMALL, "-o", "notes"], "notes"),
}


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_wrong_use_is_one_sentence(case, tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("dear diary")
    words, expected = WRONG[case]
    assert run(words) in (1, 2)
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said


def test_data_without_labels_is_sent_to_distill(tmp_path, capsys):
    import numpy as np

    from tersor.cli.digits import load_digits

    np.savez("images.npz", x=load_digits()[0])
    words = ["--model-arg", "width=8", "--data", "npz:images.npz"]
    assert run(["train", DIGITS, *words]) == 1
    assert "`distill` from a teacher" in capsys.readouterr().err


def test_an_unfinished_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "out" / "run").mkdir(parents=True)
    (tmp_path / "out" / "run" / "decided.json").write_text("{}")
    assert run(["train", DIGITS, *SMALL, "-o", "out"]) == 2
    assert "--resume" in capsys.readouterr().err
