"""Searches that are killed and stopped, through the real command line."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from pydantic import TypeAdapter
from safetensors.torch import save_file

from tersor.certification.verify import Verdict, verify
from tersor.cli.digits import split_digits
from tersor.errors import ArgumentError, DataError, FolderError
from tersor.exporting.artefact import Artefact
from tersor.measurement.median import median_interval
from tersor.measurement.result import Comparison, Measurement, verdict_of
from tersor.planning.plan import Plan
from tersor.reporting.folder import find_faults
from tersor.search.asked import read_asked
from tersor.search.baseline import STORED
from tersor.search.candidate import Candidate
from tersor.search.journal import Journal
from tersor.search.optimize import optimize
from tersor.search.outcome import Fate
from tersor.search.resume import resume
from tersor.search.run import Baseline

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
    assert not (out / "search" / "teacher").exists()
    log = (out / "log.txt").read_text()
    assert "int8: tried because" in log
    assert tomllib.loads((out / "config.toml").read_text())["optimize"]["goal"] == "size"
    ended = tersor(place, "resume", "out")
    assert ended.wait(timeout=120) == 0


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_terminated_search_finishes_with_what_there_is(place, executor):
    if executor == "ray":
        pytest.importorskip("ray")
    process = begun(place, "--executor", executor)
    wait_for(place / "out" / "search" / "candidates" / "int8", process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 130, said
    assert "interrupted; finishing with what there is" in said
    assert verify(place / "out").verdict is Verdict.VERIFIED
    assert tomllib.loads((place / "out" / "config.toml").read_text())["optimize"]["executor"] == executor


@pytest.mark.slow
def test_a_killed_search_goes_on_on_a_cluster_of_its_own(place):
    pytest.importorskip("ray")
    process = begun(place, "--executor", "ray", "--max-candidates", "3")
    wait_for(place / "out" / "search" / "candidates" / "int8", process)
    process.kill()
    process.wait()
    assert read_asked(place / "out" / "search").options["executor"] == "ray"
    again = tersor(place, "resume", "out")
    said = again.communicate(timeout=600)[1]
    assert again.returncode == 0, said
    assert "int8: made before" in said
    assert verify(place / "out").verdict is Verdict.VERIFIED
    assert tomllib.loads((place / "out" / "config.toml").read_text())["optimize"]["executor"] == "ray"


def measured_in_few_turns():
    one = Measurement(1e-3, 1e-3, 1e-3, 1e3, 1, 0.1, 1, 1, 1, "onnxruntime", 3)
    limits = median_interval([1.0, 1.1])
    return Comparison(
        limits.median, limits.low, limits.high, 2, 0, 1, one, one, verdict_of(limits.low, limits.high), 0.0
    )


def test_measurements_whose_interval_has_no_end_are_read_back_from_the_journal(tmp_path):
    speed = measured_in_few_turns()
    assert speed.high == math.inf
    journal = Journal(tmp_path)
    made = [Candidate("int8", Plan()), Candidate("joint 45%", Plan())]
    first, other = (replace(candidate, speed=speed) for candidate in made)
    journal.freeze([first], [other])
    assert journal.frozen(made) == ([first], [other])
    file = Artefact("onnxruntime", tmp_path / "model.onnx", 10, "ab")
    baselines = (Baseline("torch", file, speed),)
    assert STORED.validate_json(STORED.dump_json(baselines)) == baselines


def test_measurements_of_versions_that_kept_no_distribution_are_read():
    told = replace(measured_in_few_turns().base, quantiles_s=(1e-3, 2e-3))
    adapter = TypeAdapter(Measurement)
    stored = adapter.dump_python(told, mode="json")
    assert adapter.validate_python(stored) == told
    del stored["quantiles_s"]
    assert adapter.validate_python(stored) == replace(told, quantiles_s=())


def test_finalists_stay_frozen_where_another_candidate_was_given_up_and_never_kept(tmp_path):
    journal, made = Journal(tmp_path), [Candidate("int8", Plan())]
    journal.freeze(made, [Candidate("given up", Plan(), fate=Fate.FAILED)])
    assert journal.frozen(made) == (made, [])
    assert journal.frozen([]) is None


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
@pytest.mark.parametrize("budget_s", [70.0])
def test_a_budget_is_kept_with_a_certificate_in_it(place, budget_s):
    begun_s = time.monotonic()
    process = begun(place, "--budget", f"{budget_s}s")
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    assert time.monotonic() - begun_s < 1.1 * budget_s
    assert verify(place / "out").verdict is Verdict.VERIFIED
