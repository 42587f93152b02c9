"""`target="auto"`: which runtime a race of the original's files makes the target, what it costs, and that it stays."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError
from tersor.exporting.export import RUNTIMES
from tersor.loading.build import build_task
from tersor.loading.model import load_model
from tersor.measurement.result import Comparison, Measurement, verdict_of
from tersor.search import choose_target as choosing
from tersor.search import request as request_module
from tersor.search import runtime_race
from tersor.search.asked import read_asked
from tersor.search.choose_target import choose_target
from tersor.search.clock import Clock
from tersor.search.interim import SEARCH
from tersor.search.journal import Journal
from tersor.search.optimize import optimize
from tersor.search.preview import outline
from tersor.search.request import make_request
from tersor.search.resume import resume
from tersor.search.runtime_race import Opening

needs_openvino = pytest.mark.skipif(bool(RUNTIMES["openvino"].missing()), reason="needs openvino")


@pytest.fixture(scope="module")
def task(perceptron, digits):
    return build_task(perceptron, digits).task


@pytest.fixture
def chosen(task, tmp_path):
    """Return a function that chooses a target, and gives what was settled with what was said."""

    def choose(goal="latency", budget=None, methods=("prune", "distill"), of=task):
        said = []
        options = {"methods": methods, "on_event": lambda event: said.append(event.text)}
        asked = make_request("5%", "auto", goal, budget, options)
        settled = choose_target(asked, of, Clock(asked.budget_s), Journal(tmp_path))
        return SimpleNamespace(target=settled.request.target, why=settled.why, said=said)

    return choose


@pytest.fixture
def two_runtimes(monkeypatch):
    for module in (choosing, runtime_race):
        monkeypatch.setattr(module, "installed_targets", lambda: ("onnxruntime", "openvino"))


def comparison(ratio, spread, peak=1e6):
    low, high = ratio - spread, ratio + spread
    base, candidate = (
        Measurement(seconds, seconds, seconds, 1 / seconds, int(held), 0.1, 1, 1, 1, "any", 9)
        for seconds, held in ((1e-3, 1e6), (1e-3 / ratio, peak))
    )
    return Comparison(ratio, low, high, 9, 0, 1, base, candidate, verdict_of(low, high), 0.0)


@pytest.fixture
def timed(monkeypatch, two_runtimes):
    """Return a function that says how files are measured, by a part of their path; it keeps what was measured."""

    def says(**results):
        seen = []

        def measure(base, candidates, *_, **__):
            seen[:] = [base, *candidates]
            return tuple(
                next(found for part, found in results.items() if part in str(file.path))
                for file in candidates
            )

        monkeypatch.setattr(runtime_race, "measure_all", measure)
        return seen

    return says


@needs_openvino
@pytest.mark.parametrize(
    ("ratio", "spread", "target"),
    [(1.5, 0.1, "openvino"), (0.6, 0.1, "onnxruntime"), (1.1, 0.2, "onnxruntime")],
)
def test_the_runtime_that_is_clearly_faster_is_the_target_and_the_first_one_within_the_noise(
    chosen, timed, ratio, spread, target
):
    timed(openvino=comparison(ratio, spread))
    found = chosen()
    assert found.target == target
    assert f"The target is {target}" in found.why
    assert found.said[-1] == found.why
    assert any(f"{ratio:.2f}x ({ratio - spread:.2f} to {ratio + spread:.2f})" in text for text in found.said)


@needs_openvino
def test_integers_decide_where_methods_allow_them(chosen, timed):
    results = {
        "onnxruntime": comparison(1.5, 0.05),
        "openvino-static": comparison(1.9, 0.05),
        "openvino": comparison(0.5, 0.05),
    }
    timed(**results)
    found = chosen(methods=("quantize",))
    assert found.target == "openvino"
    assert "openvino with static 8-bit integers: 0.526 ms a call" in found.why
    timed(**results)
    assert chosen().target == "onnxruntime"


@needs_openvino
def test_integers_whose_answers_are_ruined_do_not_count(chosen, timed, monkeypatch, task):
    seen = timed(openvino=comparison(0.5, 0.05), onnxruntime=comparison(1.2, 0.05))

    class Ruined(nn.Module):
        def forward(self, x):
            return 0.0 * task.model(x)

    def build(run, parent, scheme):
        broken = run.request.target == "openvino"
        return lambda blank: replace(blank, model=Ruined().eval() if broken else parent.model)

    monkeypatch.setattr(runtime_race, "in_integers", build)
    found = chosen(methods=("quantize",))
    assert any("openvino, static 8-bit integers: not raced (accuracy is" in text for text in found.said)
    raced = [file.runtime for file in seen if "integers" in str(file.path)]
    assert raced
    assert "openvino" not in raced


@needs_openvino
def test_integers_that_one_runtime_had_no_time_for_do_not_count_for_another(chosen, timed, monkeypatch):
    seen = timed(openvino=comparison(1.2, 0.05), onnxruntime=comparison(3.0, 0.05))
    rounded = runtime_race._Race._rounded

    def slow(race, run, kind):
        if run.request.target == "openvino":
            race.clock.reserve_s = 1e9
            return []
        return rounded(race, run, kind)

    monkeypatch.setattr(runtime_race._Race, "_rounded", slow)
    found = chosen(methods=("quantize",))
    assert found.target == "openvino"
    assert "no time to race more kinds of integers" in found.said
    assert len(seen) == 2


@needs_openvino
@pytest.mark.parametrize(
    ("held", "target"), [(2e6, "onnxruntime"), (0.97e6, "onnxruntime"), (0.8e6, "openvino")]
)
def test_for_memory_the_runtime_that_holds_clearly_less_is_the_target(chosen, timed, held, target):
    timed(openvino=comparison(9.0, 0.1, peak=held))
    assert chosen(goal="memory").target == target


@needs_openvino
def test_for_size_nothing_is_raced(chosen, monkeypatch):
    monkeypatch.setattr(choosing, "race_runtimes", None)
    found = chosen(goal="size")
    assert found.target == "onnxruntime"
    assert "weigh the same" in found.why


def test_without_another_runtime_nothing_is_raced(chosen, monkeypatch):
    absent = SimpleNamespace(missing=lambda: "it")
    lacking = dict(RUNTIMES) | {"openvino": absent, "executorch": absent}
    monkeypatch.setattr(request_module, "RUNTIMES", lacking)
    monkeypatch.setattr(choosing, "race_runtimes", None)
    found = chosen()
    assert found.target == "onnxruntime"
    assert "no other runtime" in found.why


@pytest.fixture
def openvino_first(monkeypatch, two_runtimes):
    """Return a function that puts an action before the original is made for OpenVINO."""
    real = runtime_race.with_file

    def put(action):
        def made(candidate, task, folder, request, **rest):
            if request.target == "openvino":
                action()
            return real(candidate, task, folder, request, **rest)

        monkeypatch.setattr(runtime_race, "with_file", made)

    return put


@needs_openvino
def test_a_runtime_that_cannot_take_the_original_is_left_out(chosen, openvino_first):
    def fail():
        raise RuntimeError("no such operator")

    openvino_first(fail)
    found = chosen()
    assert found.target == "onnxruntime"
    assert "openvino, floating point: not raced (no such operator)" in found.said


@needs_openvino
def test_a_race_that_takes_too_long_is_given_up(chosen, openvino_first):
    openvino_first(lambda: time.sleep(3600))
    found = chosen(budget="10s")
    assert found.target == "onnxruntime"
    assert any("openvino, floating point: not raced (took longer than the" in text for text in found.said)


def test_a_race_takes_a_twentieth_of_the_budget_and_a_minute_without_one():
    assert runtime_race._share_s(Clock(1000.0)) == 50.0
    assert runtime_race._share_s(Clock()) == 60.0
    assert runtime_race._share_s(Clock(1000.0, time.monotonic() - 990.0)) == 0.0


@pytest.mark.parametrize("target", ["auto,executorch", "onnxruntime,auto", ("auto", "openvino")])
def test_auto_stands_alone(target):
    with pytest.raises(ArgumentError, match=r"'auto' stands alone.*name them"):
        make_request("1%", target, "latency", None, {})


def test_a_target_that_is_named_is_not_raced(task, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "race_runtimes", None)
    asked = make_request("1%", "onnxruntime", "latency", None, {})
    assert choose_target(asked, task, Clock(), Journal(tmp_path)) == (asked, "")


def test_a_preview_names_the_runtimes_that_would_be_raced(task, monkeypatch):
    monkeypatch.setattr("tersor.search.preview.installed_targets", lambda: ("onnxruntime", "openvino"))
    lines = outline(task, make_request("1%", "auto", "latency", "10m", {}))
    assert any("onnxruntime and openvino a race" in line for line in lines)
    monkeypatch.setattr("tersor.search.preview.installed_targets", lambda: ("onnxruntime",))
    lines = outline(task, make_request("1%", "auto", "latency", "10m", {}))
    assert any("onnxruntime, the only runtime installed" in line for line in lines)


def test_files_are_judged_on_the_same_samples_each_time():
    class Counted:
        name = "search"

        def __len__(self):
            return 100

        def batches(self, size, *, shuffle=None, limit=None):
            order = torch.randperm(100, generator=torch.Generator().manual_seed(shuffle))[:limit]
            return iter(order.split(size))

    few = Opening(Counted(), 10, 3)
    assert len(few) == 10
    first, again, other = (torch.cat(list(few.batches(4, shuffle=s))) for s in (None, 7, None))
    assert torch.equal(first, again)
    assert torch.equal(first, other)
    assert len(first) == 10
    assert len(torch.cat(list(few.batches(4, limit=3)))) == 3


@needs_openvino
def test_an_onnx_file_that_stays_a_graph_is_raced_in_integers_too(
    chosen, timed, tmp_path, perceptron, digits, with_a_branch
):
    from tersor.exporting.export import export

    path = tmp_path / "branch.onnx"
    export(perceptron, (torch.from_numpy(digits["train"][0][:2]),), path)
    graph = build_task(load_model(str(with_a_branch(path))), digits).task
    timed(onnxruntime=comparison(1.5, 0.05), openvino=comparison(0.5, 0.05))
    found = chosen(methods=("quantize",), of=graph)
    assert found.target == "onnxruntime"
    assert any("onnxruntime, dynamic 8-bit integers: 1.50x" in text for text in found.said)


@needs_openvino
def test_a_search_keeps_what_its_race_chose_also_when_it_goes_on(
    perceptron, digits, timed, tmp_path, monkeypatch
):
    out, said = tmp_path / "out", []
    timed(openvino=comparison(2.0, 0.1))

    def stop(event):
        said.append(event.text)
        if event.phase == "candidate" and "on search data" in event.text:
            raise SystemExit

    asked = {"max_drop": 0.03, "methods": ("quantize",)}
    monkeypatch.setattr(runtime_race._Race, "_wanted", lambda *_: [])
    with pytest.raises(SystemExit):
        optimize(perceptron, digits, target="auto", output=out, on_event=stop, **asked)
    assert read_asked(out / SEARCH).targets == ("openvino",)
    monkeypatch.setattr(choosing, "race_runtimes", None)
    result = resume(out, perceptron, digits)
    assert result.artefact.runtime == "openvino"
    assert {file.runtime for one in result.tried for file in one.files} == {"openvino"}
    why = result.record().aim.target_because
    assert why in said
    assert why.startswith("The target is openvino, which a race")
    folder = result.save(tmp_path / "saved")
    for name in ("README.md", "report.html"):
        assert "which a race of the original" in (folder / name).read_text(encoding="utf-8")


def test_a_search_for_auto_ends_with_a_file_for_the_runtime_that_the_race_named(
    perceptron, digits, monkeypatch
):
    monkeypatch.setattr(runtime_race, "MOST_S", 15.0)
    result = optimize(
        perceptron, digits, target="auto", max_drop=0.03, methods=("quantize",), max_candidates=1
    )
    because = result.record().aim.target_because
    assert because.startswith(f"The target is {result.artefact.runtime}")
    assert result.run.request.as_config()["target"] == result.artefact.runtime
