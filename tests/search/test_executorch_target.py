"""ExecuTorch as the target, alone or with ONNX Runtime: the files are `.pte`, measured, certified and verified."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from tersor.certification.verify import verify
from tersor.exporting.export import RUNTIMES
from tersor.loading.build import build_task
from tersor.measurement.result import Comparison, Measurement, verdict_of
from tersor.search import runtime_race
from tersor.search.choose_target import choose_target
from tersor.search.clock import Clock
from tersor.search.journal import Journal
from tersor.search.optimize import optimize
from tersor.search.request import make_request
from tersor.search.run import file_name

pytestmark = pytest.mark.skipif(bool(RUNTIMES["executorch"].missing()), reason="needs executorch")


def split(count: int, seed: int):
    x = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return x.numpy(), (x.mean((1, 2, 3)) > 0).long().numpy()


def network() -> nn.Module:
    """Tell the sign of the mean, with far more arithmetic than that takes."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
    )  # fmt: skip
    x, y = map(torch.from_numpy, split(512, 1))
    optimizer = torch.optim.Adam(layers.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layers(x), y).backward()
        optimizer.step()
    return layers.eval()


@pytest.fixture(scope="module")
def data():
    return {"train": split(512, 1), "search": split(256, 2), "certification": split(600, 3)}


def test_both_files_are_certified_and_verified(tmp_path, data):
    both = "onnxruntime,executorch"
    result = optimize(network(), data, max_drop="10%", goal="size", target=both, methods=("quantize",))
    result.save(tmp_path / "out")
    assert result.best is not None
    assert [file.runtime for file in (result.artefact, *result.best.others)] == ["onnxruntime", "executorch"]
    assert (tmp_path / "out" / "executorch" / "model.pte").is_file()
    for folder in (tmp_path / "out", tmp_path / "out" / "executorch"):
        assert verify(folder)


def test_as_the_only_target_its_folder_holds_a_file_that_runs_and_is_certified(tmp_path, data):
    out = tmp_path / "out"
    result = optimize(
        network(), data, max_drop="10%", goal="size", target="executorch", methods=("quantize",), output=out
    )
    assert (out / "model.pte").is_file()
    result.save(out)
    assert result.best is not None
    assert {file.runtime for one in result.tried for file in one.files} == {"executorch"}
    assert not list(out.glob("model.onnx"))
    assert verify(out)
    assert "`run.py` needs only `executorch`" in (out / "README.md").read_text()
    run = [sys.executable, "run.py", "--runs", "1", "--batch"]
    done = subprocess.run([*run, "3"], cwd=out, capture_output=True, text=True, timeout=120, check=True)
    assert "output 0: shape (3, 2), torch.float32" in done.stdout
    refused = subprocess.run([*run, "64"], cwd=out, capture_output=True, text=True, timeout=120, check=False)
    assert "takes at most 32 sample(s) a call" in refused.stderr


def test_a_model_of_both_may_have_its_main_file_for_executorch():
    request = make_request("1%", "executorch,onnxruntime", "latency", None, {})
    names = [file_name(target, request) for target in request.targets]
    assert names == ["model.pte", "model.onnxruntime.onnx"]


def speed(ratio: float) -> Comparison:
    base, candidate = (
        Measurement(seconds, seconds, seconds, 1 / seconds, 10**6, 0.1, 1, 1, 1, "any", 9)
        for seconds in (1e-3, 1e-3 / ratio)
    )
    low, high = 0.9 * ratio, 1.1 * ratio
    return Comparison(ratio, low, high, 9, 0, 1, base, candidate, verdict_of(low, high), 0.0)


def test_auto_takes_executorch_where_it_is_clearly_faster(tmp_path, data, monkeypatch):
    measured = []

    def measure(base, candidates, *_, **__):
        measured[:] = [base, *candidates]
        return tuple(speed(2.0 if file.runtime == "executorch" else 0.5) for file in candidates)

    monkeypatch.setattr(runtime_race, "measure_all", measure)
    request = make_request("10%", "auto", "latency", None, {"methods": ("prune", "distill")})
    task = build_task(network(), data).task
    settled = choose_target(request, task, Clock(), Journal(tmp_path))
    assert settled.request.target == "executorch"
    assert measured[0].runtime == "onnxruntime"
    assert "a race of the original's files chose (executorch with floating point" in settled.why
