import os
import signal
import time

import numpy as np
import psutil
import pytest

from tersor.errors import MeasurementError
from tersor.exporting.export import open_artefact
from tersor.measurement.runner import Runner

ARRAYS = (np.ones((2, 64), np.float32),)


def process_of(runner: Runner) -> psutil.Process:
    (process,) = (
        child for child in psutil.Process().children() if "tersor.measurement.worker" in child.cmdline()
    )
    return process


@pytest.mark.parametrize("gone", [True, False], ids=["before it is asked", "while it is asked"])
def test_a_process_that_dies_is_an_error_that_names_the_file(small, gone):
    with Runner(small, ARRAYS) as runner:
        process = process_of(runner)
        os.kill(process.pid, signal.SIGKILL)
        while gone and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        with pytest.raises(
            MeasurementError, match=r"runs small\.onnx in onnxruntime ended with exit code -9"
        ):
            runner.block(0.01)


def test_wrong_inputs_are_an_error_and_leave_no_process_behind(small):
    with pytest.raises(MeasurementError, match=r"small\.onnx.*failed with"):
        Runner(small, (np.ones((2, 3), np.float32),))
    assert not [
        child for child in psutil.Process().children() if "tersor.measurement.worker" in child.cmdline()
    ]


def test_a_block_calls_the_file_at_least_once_and_times_every_call(small):
    with Runner(small, ARRAYS) as runner:
        block = runner.block(0.05)
        assert len(block.times_s) == len(block.busy_s) > 1
        assert min(block.times_s) > 0
        assert len(runner.block(0.0).times_s) == 1


def test_the_process_is_bound_to_the_given_processors(small):
    allowed = psutil.Process().cpu_affinity()
    with Runner(small, ARRAYS, cpus=allowed[-1:]) as runner:
        assert process_of(runner).cpu_affinity() == allowed[-1:]


def test_what_a_runtime_prints_does_not_disturb_the_answers(small, monkeypatch):
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    with Runner(small, ARRAYS) as runner:
        assert runner.load_s > 0


def test_a_file_gives_the_same_outputs_in_its_own_process(small):
    x = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    with Runner(small, ARRAYS) as runner:
        (apart,) = runner([x])
    (here,) = open_artefact(small)([x])
    np.testing.assert_array_equal(apart, here)


def test_a_file_that_gives_no_answer_is_given_up(small):
    with Runner(small, ARRAYS, patience_s=30.0) as runner:
        os.kill(process_of(runner).pid, signal.SIGSTOP)
        runner.patience_s = 0.2
        with pytest.raises(MeasurementError, match=r"small\.onnx .* gave no answer in 0\.2 s"):
            runner(ARRAYS)
