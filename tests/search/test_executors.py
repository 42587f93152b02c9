"""Work on a Ray cluster gives what work in this process gives, whatever becomes of its workers."""

import _thread
import os
import signal
import socket
import sys
import textwrap
import threading
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib import import_module
from math import inf

import psutil
import pytest
import torch

from tersor.cli.digits import Perceptron
from tersor.errors import ArgumentError, MissingExtraError
from tersor.loading.build import build_task
from tersor.loading.limit import Drop
from tersor.loading.references import load_object
from tersor.planning.plan import Plan
from tersor.search import effort
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.cluster import Cluster, Lost, check_answers
from tersor.search.descend import descend
from tersor.search.executors import Local
from tersor.search.guard import OutOfMemory, OutOfTime
from tersor.search.journal import Journal
from tersor.search.outcome import Fate
from tersor.search.request import Request, make_request
from tersor.search.run import Run, attempt, counted, placed, with_file
from tersor.search.shrink import restored

#: Title of a process that does work for a search.
TITLE = "ray::tersor"


@pytest.fixture(scope="module")
def two_workers():
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        configure_logging=False,
    )
    yield
    ray.shutdown()
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def started(perceptron, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    request = Request(Drop(0.03, False), goal="size", methods=("prune", "quantize", "distill"))
    task = build_task(perceptron, digits).task
    blank = counted(Candidate("original", Plan(), task.model), task.model, task.inputs)
    base = with_file(blank, task, folder, request)
    floor = base.quality.value - 0.03
    return Run(task, request, Clock(), Journal(folder), base, base.artefact, (), 0.03, floor)


@pytest.fixture
def run(started, tmp_path):
    return replace(started, journal=Journal(tmp_path, keeps_models=True))


@pytest.fixture
def cluster(two_workers, run):
    with closing(Cluster(run.task)) as cluster:
        yield cluster


class Enough(Exception):
    pass


def candidates(run, executor, folder, most):
    """Return the first candidates of a search."""
    made = []

    def report(candidate):
        made.append(candidate)
        if len(made) == most:
            raise Enough

    folder.mkdir()
    placed_run = replace(run, executor=executor, journal=Journal(folder, keeps_models=True))
    with pytest.raises(Enough):
        descend(placed_run, report)
    return made


def workers():
    """Return the processes that are at work."""
    found = []
    for process in psutil.process_iter():
        try:
            if TITLE in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_one(killed):
    """Kill the first process that is found at work."""
    while not killed:
        killed += workers()[:1]
        time.sleep(0.02)
    os.kill(killed[0].pid, signal.SIGKILL)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(first, second):
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_search_gives_the_same_candidates_where_a_worker_is_killed_in_the_middle(
    run, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(effort, "FINE", (0.4,))
    here = candidates(run, Local(), tmp_path / "here", 4)
    killed = []
    killer = threading.Thread(target=kill_one, args=(killed,), daemon=True)
    killer.start()
    there = candidates(run, cluster, tmp_path / "there", 4)
    killer.join(1.0)
    assert killed
    assert not killed[0].is_running()
    assert [c.name for c in here] == ["int8", "int8 static", "prune 60%", "prune 60% + int8"]
    for first, second in zip(here, there, strict=True):
        assert first.quality is not None
        assert (second.name, second.plan, second.losses) == (first.name, first.plan, first.losses)
        assert (second.fate, second.steps, second.macs) == (first.fate, first.steps, first.macs)
        assert second.quality.value == first.quality.value
        assert second.artefact.size_bytes == first.artefact.size_bytes
        assert_same(state(first.model), state(second.model))
    assert len({c.quality.value for c in here} | {c.artefact.size_bytes for c in here}) > 2


def test_trainings_at_the_same_time_give_the_weights_of_one_after_the_other(run, cluster):
    torch.manual_seed(3)
    students = [Perceptron(hidden) for hidden in (16, 24, 32)]
    here = [wait() for wait in restored(run, students, 0.5, "short")]
    torch.randn(7)
    there = [wait() for wait in restored(replace(run, executor=cluster), students, 0.5, "short")]
    for (first, losses), (second, others) in zip(here, there, strict=True):
        assert losses == others
        assert len(losses) > 2
        assert_same(state(first), state(second))
    assert not torch.equal(here[0][0].state_dict()["layers.1.weight"], students[0].layers[1].weight)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_worker_draws_the_same_numbers_on_as_many_threads_and_moves_nobody_elses(run, cluster, threads):
    def draw():
        return torch.rand(3).tolist(), torch.get_num_threads()

    torch.set_num_threads(threads)
    try:
        before = torch.get_rng_state()
        here = [wait() for wait in placed(run, [draw, draw])]
        there = [wait() for wait in placed(replace(run, executor=cluster), [draw, draw])]
    finally:
        torch.set_num_threads(1)
    assert here == there == [here[0]] * 2
    assert here[0][1] == threads
    assert torch.equal(torch.get_rng_state(), before)


def test_work_that_kills_its_worker_every_time_is_a_failed_candidate(run, cluster, tmp_path):
    died = tmp_path / "died"

    def die(blank):
        with died.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    blank = Candidate("deadly", Plan())
    (wait,) = placed(replace(run, executor=cluster), [partial(die, blank)])
    failed = attempt(run, blank, lambda _: wait())
    assert failed.fate is Fate.FAILED
    assert "its worker died 3 times" in failed.reason
    assert len(died.read_text()) == 3


@pytest.mark.parametrize("error", [ValueError("bad luck"), KeyError("x"), ArgumentError("not this one")])
def test_an_error_on_a_worker_is_the_error_that_it_is_here(run, cluster, error):
    def fail():
        raise error

    for executor in (Local(), cluster):
        (wait,) = executor.begin([fail])
        with pytest.raises(type(error)) as raised:
            wait()
        assert str(raised.value) == str(error)


class Odd(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def test_an_error_that_cannot_be_built_again_is_told_in_words(run, cluster):
    def fail():
        raise Odd("this", "that")

    blank = Candidate("odd", Plan())
    (wait,) = cluster.begin([fail])
    assert attempt(run, blank, lambda _: wait()).reason == "Odd: this and that"


def test_a_worker_keeps_the_limits_of_time_and_memory(cluster):
    slow, large = cluster.begin([partial(time.sleep, 60)], seconds=0.3), partial(bytearray, 300_000_000)
    with pytest.raises(OutOfTime, match=r"0\.3 s"):
        slow[0]()

    def hold():
        held = large()
        time.sleep(5)
        return len(held)

    with pytest.raises(OutOfMemory, match="are allowed"):
        cluster.begin([hold], most_bytes=200e6)[0]()


def test_an_interruption_ends_the_work_under_way(cluster):
    waits = cluster.begin([partial(time.sleep, 600)] * 2)
    while len(workers()) < 2:
        time.sleep(0.05)
    threading.Timer(0.2, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        waits[0]()
    cluster.close()
    end = time.monotonic() + 20.0
    while workers() and time.monotonic() < end:
        time.sleep(0.05)
    assert not workers()


def test_the_sealed_samples_stay_here_and_the_clock_goes_on(run, cluster):
    run = replace(run, clock=Clock(1000.0, time.monotonic() - 400.0), executor=cluster)

    def look():
        return len(run.task.certification), len(run.task.train), run.clock.elapsed_s

    (wait,) = placed(run, [look])
    sealed, train, elapsed_s = wait()
    assert (sealed, train) == (0, len(run.task.train))
    assert len(run.task.certification) > 0
    assert 400.0 <= elapsed_s < 500.0


def test_what_the_search_holds_already_comes_back_as_the_same_object(run, cluster):
    (wait,) = cluster.begin([lambda: (run.task.model, Perceptron(4), run.task)])
    model, fresh, task = wait()
    assert model is run.task.model
    assert task is run.task
    assert isinstance(fresh, Perceptron)


def test_a_model_from_a_file_travels(two_workers, digits, tmp_path):
    source = """
    from torch import nn

    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, image):
            return self.layer(image.flatten(1))
    """
    (tmp_path / "mine.py").write_text(textwrap.dedent(source))
    model = load_object(f"{tmp_path / 'mine.py'}:Mine", ArgumentError)()
    task = build_task(model, digits).task
    with closing(Cluster(task)) as cluster:
        (wait,) = cluster.begin([lambda: type(model)()])
        assert isinstance(wait(), type(model))


def test_what_cannot_travel_says_what_to_do(two_workers, run, cluster):
    lock = threading.Lock()
    task = replace(run.task, loss=lambda output, target: lock)
    with pytest.raises(ArgumentError, match=r"cannot be sent to a worker .*executor 'local'"):
        Cluster(task)
    fine, stuck, kept = cluster.begin([lambda: 1, lambda: lock, threading.Lock])
    assert fine() == 1
    assert "cannot be sent" in attempt(run, Candidate("stuck", Plan()), lambda _: stuck()).reason
    assert "pickle" in attempt(run, Candidate("kept", Plan()), lambda _: kept()).reason


def test_a_worker_without_the_packages_of_the_model_says_so(cluster, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def one():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (wait,) = cluster.begin([import_module("only_here").one])
    with pytest.raises(Lost, match=r"only_here.* Every machine of the cluster needs"):
        wait()


def test_a_cluster_that_does_not_answer_is_named_at_once():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(ArgumentError, match=f"RAY_ADDRESS={address} .*refused.*ray start"):
            check_answers(address)
        with pytest.raises(ArgumentError, match="RAY_ADDRESS=ray://"):
            check_answers(f"ray://{address}")
        nobody.listen()
        check_answers(address)
    for word in ("", "auto", "local"):
        check_answers(word)


def test_without_ray_the_request_names_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tersor\[ray\]'"):
        make_request("1%", "onnxruntime", "size", None, {"executor": "ray"})
    assert make_request("1%", "onnxruntime", "size", None, {}).executor == "local"
    with pytest.raises(ArgumentError, match="`executor` must be one of 'local', 'ray'"):
        make_request("1%", "onnxruntime", "size", None, {"executor": "rya"})


def test_work_here_is_done_in_its_order_when_it_is_asked_for():
    done = []

    def fail():
        done.append("failed")
        raise ValueError("no")

    first, second, third = Local().begin([lambda: done.append("first"), fail, lambda: 3], seconds=inf)
    assert done == []
    first()
    with pytest.raises(ValueError, match="no"):
        second()
    assert third() == 3
    assert done == ["first", "failed"]
