"""One candidate at a time: what goes wrong with it stays with it, and what is kept comes back the same."""

import textwrap

import psutil
import pytest
import torch

from tersor.loading.build import build_task
from tersor.loading.limit import Drop
from tersor.planning.plan import Cut, Plan, Quantize
from tersor.quantization.quantize import quantize
from tersor.search import run as run_module
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.journal import Journal
from tersor.search.outcome import Fate
from tersor.search.request import Request
from tersor.search.run import Run, attempt, calibration_inputs, with_file
from tersor.search.verbs import prune

#: Loaded by every process that starts later: opening a file whose model is marked ends as the test says.
SABOTAGE = """
import os, signal, sys, time
import onnxruntime

class Session(onnxruntime.InferenceSession):
    def __init__(self, path, *rest, **named):
        if "candidates/doomed" in str(path):
            {fault}
        super().__init__(path, *rest, **named)

onnxruntime.InferenceSession = Session
"""


@pytest.fixture
def run(perceptron, digits, tmp_path):
    task = build_task(perceptron, digits).task
    base = Candidate("original", Plan(), task.model)
    base = with_file(base, task, tmp_path, Request(Drop(0.03, False)))
    return Run(
        task,
        Request(Drop(0.03, False)),
        Clock(),
        Journal(tmp_path, keeps_models=True),
        base,
        base.artefact,
        (),
        0.03,
        base.quality.value - 0.03,
    )


def smaller(run):
    """Return how to build a candidate with half of its hidden units."""

    def build(blank):
        model, plan = prune(run.task.model, run.task.inputs, ratio=0.5)
        return Candidate(blank.name, plan, model, why="half of it", losses=(1.0, 0.5), macs=7)

    return build


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param("os.abort()", "exit code -6", marks=pytest.mark.slow),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "exit code -11"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", "exit code -9", marks=pytest.mark.slow),
        ("time.sleep(600)", "gave no answer in 8 s"),
    ],
)
def test_a_runtime_that_crashes_or_hangs_is_a_failed_candidate_with_its_reason(
    run, fault, reason, tmp_path, monkeypatch
):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(SABOTAGE).format(fault=fault))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(run_module, "PATIENCE_S", 8.0)
    failed = attempt(run, Candidate("doomed", Plan()), smaller(run))
    assert failed.fate is Fate.FAILED
    assert reason in failed.reason
    assert run.journal.recall("doomed", run.task).reason == failed.reason


@pytest.mark.parametrize(
    "error", [RuntimeError("bad luck"), MemoryError(), KeyError("x"), AssertionError("no")]
)
def test_any_exception_is_a_failed_candidate(run, error):
    def build(blank):
        raise error

    failed = attempt(run, Candidate("doomed", Plan()), build)
    assert failed.fate is Fate.FAILED
    assert type(error).__name__ in failed.reason


def test_an_interruption_is_not_a_failure_of_the_candidate(run):
    def build(blank):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(run, Candidate("stopped", Plan()), build)
    assert run.journal.recall("stopped", run.task) is None


def test_a_kept_candidate_comes_back_the_same_and_is_not_made_again(run):
    made = attempt(run, Candidate("half", Plan()), smaller(run))
    again = attempt(run, Candidate("half", Plan()), lambda blank: pytest.fail("made again"))
    assert again.plan == made.plan
    assert again.plan.of(Cut)
    assert (again.artefact, again.macs, again.losses, again.why) == (
        made.artefact,
        7,
        (1.0, 0.5),
        "half of it",
    )
    assert torch.equal(again.quality.scores, made.quality.scores)
    assert again.quality.ids == made.quality.ids
    images = run.task.inputs[0]
    assert torch.equal(again.model(images), made.model(images))
    assert type(again.model) is type(run.task.model)


def test_a_kept_integer_twin_gets_its_module_back(run):
    def build(blank):
        half = smaller(run)(blank)
        model = quantize(half.model, run.task.inputs, calibration_inputs(run.task))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)
        plan = half.plan + Plan(tuple(Quantize(name) for name in model.integers))
        return Candidate(blank.name, plan, model, half.model)

    made = attempt(run, Candidate("half + int8", Plan()), build)
    recalled = run.journal.recall("half + int8", run.task)
    assert recalled.model is None
    again = run.journal.completed(recalled, run.task.inputs, calibration_inputs(run.task))
    images = run.task.inputs[0]
    assert torch.equal(again.model(images), made.model(images))


def test_a_candidate_during_which_the_process_died_twice_is_left_out(run):
    for _ in range(2):
        run.journal.begin("deadly")
    failed = attempt(run, Candidate("deadly", Plan()), lambda blank: pytest.fail("made again"))
    assert failed.fate is Fate.FAILED
    assert "ended twice" in failed.reason


def test_a_candidate_that_takes_too_long_is_given_up_and_may_be_tried_again(run):
    def build(blank):
        while True:
            torch.randn(10)

    clock = Clock(0.5)
    clock.reserve_s = 0.0
    hurried = Run(**{name: getattr(run, name) for name in run.__dataclass_fields__} | {"clock": clock})
    failed = attempt(hurried, Candidate("slow", Plan()), build)
    assert failed.fate is Fate.FAILED
    assert "took longer" in failed.reason
    assert attempt(run, Candidate("slow", Plan()), smaller(run)).quality is not None


def test_no_process_is_left_behind(run):
    attempt(run, Candidate("half", Plan()), smaller(run))
    workers = [p for p in psutil.Process().children() if "tersor.measurement.worker" in p.cmdline()]
    assert not workers
