"""Searches that are killed and stopped, through the real command line."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import onnxruntime
import pytest
from safetensors.torch import save_file

from tersor.certification.verify import Verdict, verify
from tersor.cli.digits import split_digits
from tersor.errors import ArgumentError, DataError, FolderError
from tersor.reporting.folder import find_faults
from tersor.search.optimize import optimize
from tersor.search.resume import resume

NET = """
from tersor.cli.digits import Perceptron, split_digits

def build():
    return Perceptron(96)

def splits():
    return split_digits()
"""


@pytest.fixture
def place(tmp_path, perceptron):
    (tmp_path / "net.py").write_text(NET)
    save_file(dict(perceptron.state_dict()), tmp_path / "w.safetensors")
    return tmp_path


def tersor(place, *words):
    words = [sys.executable, "-c", "from tersor.cli import main; main()", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(words, cwd=place, stderr=subprocess.PIPE, text=True, env=environment)


def begun(place, *words):
    source = ("net.py:build", "--data", "net.py:splits", "--weights", "w.safetensors", "-o", "out")
    return tersor(place, "optimize", *source, "--max-drop", "0.03", "--goal", "size", *words)


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def accuracy(folder):
    images, labels = split_digits()["search"]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    answers = session.run(None, {session.get_inputs()[0].name: images})[0].argmax(1)
    return float(np.mean(answers == labels))


def test_a_killed_search_leaves_the_best_so_far_and_goes_on_to_a_certificate(place):
    out = place / "out"
    process = begun(place, "--max-candidates", "3", "--budget", "90s")
    wait_for(out / "search" / "candidates" / "int8", process)
    time.sleep(random.Random(time.time()).uniform(0.0, 2.0))
    process.kill()
    process.wait()
    assert find_faults(out) == ()
    assert accuracy(out) > 0.9
    assert "tersor resume out" in (out / "README.md").read_text()
    again = tersor(place, "resume", "out")
    said = again.communicate(timeout=600)[1]
    assert again.returncode == 0, said
    assert "int8: made before" in said
    assert verify(out).verdict is Verdict.VERIFIED
    assert find_faults(out) == ()
    assert json.loads((out / "tersor.json").read_text())["outcome"] == "improved"
    log = (out / "log.txt").read_text()
    assert "int8: tried because" in log
    ended = tersor(place, "resume", "out")
    assert ended.wait(timeout=120) == 0


@pytest.mark.slow
def test_a_terminated_search_finishes_with_what_there_is(place):
    process = begun(place)
    wait_for(place / "out" / "search" / "candidates" / "int8", process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 130, said
    assert "interrupted; finishing with what there is" in said
    assert verify(place / "out").verdict is Verdict.VERIFIED


def test_what_cannot_be_gone_on_with_says_so(small_search, perceptron, digits, tmp_path):
    def stop(event):
        if event.phase == "candidate":
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        small_search(on_event=stop, output=tmp_path / "out")
    with pytest.raises(FolderError, match="no search to go on with"):
        resume(tmp_path)
    with pytest.raises(FolderError, match="has not ended"):
        optimize(perceptron, digits, max_drop=0.03, output=tmp_path / "out")
    with pytest.raises(ArgumentError, match="model and data as Python objects"):
        resume(tmp_path / "out")
    other = type(perceptron)(96).eval()
    with pytest.raises(DataError, match="weights of the model"):
        resume(tmp_path / "out", other, digits)


@pytest.mark.slow
@pytest.mark.parametrize("budget_s", [70.0, 110.0])
def test_a_budget_is_kept_with_a_certificate_in_it(place, budget_s):
    begun_s = time.monotonic()
    process = begun(place, "--budget", f"{budget_s}s")
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    assert time.monotonic() - begun_s < 1.1 * budget_s
    assert verify(place / "out").verdict is Verdict.VERIFIED
