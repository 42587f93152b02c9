"""The whole journey, with real parts."""

import copy
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from tersor.certification.verify import Verdict, verify
from tersor.errors import CertificateError
from tersor.planning.plan import Cut, Quantize
from tersor.search.describe import sentence
from tersor.search.journal import Journal
from tersor.search.optimize import optimize
from tersor.search.outcome import Fate, Outcome


def test_a_smaller_model_is_found_certified_and_saved(found, tmp_path):
    result = found.result
    assert result.outcome is Outcome.IMPROVED
    assert result.artefact.size_bytes < 0.5 * result.run.base.artefact.size_bytes
    assert result.certificate.holds
    folder = result.save(tmp_path / "out")
    assert verify(folder).verdict is Verdict.VERIFIED
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "model.onnx",
        "certificate.json",
        "tersor.json",
        "report.html",
        "report.json",
        "README.md",
        "run.py",
        "plan.json",
        "outcomes.npz",
        "ledger.jsonl",
        "DONE.json",
    }


def test_the_saved_file_runs_with_the_runtime_alone(found, tmp_path):
    folder = found.result.save(tmp_path / "out")
    done = subprocess.run([sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "10" in done.stdout


def test_one_changed_byte_of_the_model_is_noticed(found, tmp_path):
    folder = found.result.save(tmp_path / "out")
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(content)
    assert verify(folder).verdict is Verdict.BROKEN


def test_the_users_model_is_not_changed(small_search, perceptron):
    before, training = copy.deepcopy(perceptron.state_dict()), perceptron.training
    small_search(methods=("quantize",))
    assert perceptron.training == training
    assert all(torch.equal(value, before[name]) for name, value in perceptron.state_dict().items())


def test_the_same_seed_chooses_the_same_plan(found, small_search):
    again = small_search().result
    assert again.answer.plan == found.result.answer.plan
    assert [c.plan for c in again.tried] == [c.plan for c in found.result.tried]


def test_every_candidate_has_a_fate_with_its_reason(found):
    tried = found.result.tried
    assert [candidate.name for candidate in tried] == ["int8", "int8 static", "prune 60%", "prune 60% + int8"]
    assert all(candidate.reason for candidate in tried)
    assert sum(candidate is found.result.best for candidate in tried) == 1
    assert any(candidate.plan.of(Cut) for candidate in tried)
    assert any(candidate.plan.of(Quantize) for candidate in tried)


def test_the_pruned_torch_model_agrees_with_the_plan(found, digits):
    result = found.result
    float_candidate = next(c for c in result.tried if c.name == "prune 60%")
    assert float_candidate.macs <= 0.5 * result.run.base.macs
    assert type(float_candidate.model) is type(result.run.task.model)
    images = torch.from_numpy(digits["search"][0])
    accuracy = (float_candidate.model(images).argmax(1).numpy() == digits["search"][1]).mean()
    assert accuracy == pytest.approx(float_candidate.quality.value, abs=0.005)


def test_the_certification_samples_are_only_read_in_an_attempt(found):
    events = [entry["event"] for entry in found.result.certification.seal.ledger.entries()]
    assert events.index("attempt") < events.index("access")
    assert events[0] == "begin"


def test_a_metric_that_is_better_low_rises_and_does_not_drop(found):
    assert "its accuracy drops by at most 0.03 (" in found.result.sentence
    run = found.result.run
    low = replace(run, task=replace(run.task, metric=replace(run.task.metric, higher_is_better=False)))
    assert "its accuracy rises by at most 0.03 (" in sentence(replace(found.result._story, run=low))


def test_the_record_tells_the_same_story_as_the_result(found):
    record = found.result.record("tersor optimize ...")
    assert record.shipped.name == found.result.best.name
    assert record.verdict.sentence == found.result.sentence
    assert record.aim.limit.startswith("accuracy >= ")
    assert {layer.name for layer in record.layers} == {"layers.1", "layers.3", "layers.5"}
    assert any("cut" in layer.change for layer in record.layers)
    json.loads(record.to_json())


def test_the_search_says_what_it_does(found):
    phases = {event.phase for event in found.said}
    assert phases >= {"data", "baseline", "candidate", "training", "measure", "certify", "result"}
    assert any("limit: accuracy >=" in event.text for event in found.said)


def test_an_interruption_ends_with_the_best_so_far(small_search):
    def stop_at_the_second_candidate(event):
        if event.phase == "training":
            raise KeyboardInterrupt

    result = small_search(on_event=stop_at_the_second_candidate).result
    assert result.outcome is Outcome.INTERRUPTED
    assert result.outcome.exit_code == 130
    assert result.best is not None
    assert result.best.name == "int8"


def test_an_interruption_right_after_a_candidate_is_written_down_does_not_lose_it(
    small_search, monkeypatch, tmp_path
):
    keep = Journal.keep

    def interrupted(journal, candidate, *rest):
        kept = keep(journal, candidate, *rest)
        if candidate.name == "int8":
            raise KeyboardInterrupt
        return kept

    monkeypatch.setattr(Journal, "keep", interrupted)
    result = small_search(output=tmp_path / "out").result
    assert result.outcome is Outcome.INTERRUPTED
    assert result.best is not None
    assert result.best.name == "int8"
    assert result.best.model is not None


def test_without_a_gain_the_original_is_the_answer(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(3000, 16)
    network = nn.Linear(16, 2)
    labels = network(x).argmax(1)
    result = optimize(network, (x, labels), max_drop=0.05, methods=("quantize",))
    assert result.outcome is Outcome.NOTHING_BETTER
    assert result.outcome.exit_code == 3
    assert result.answer is result.run.base
    folder = result.save(tmp_path / "out")
    assert (folder / "model.onnx").exists()
    assert not (folder / "certificate.json").exists()
    assert json.loads((folder / "tersor.json").read_text())["outcome"] == "nothing_better"


def test_a_limit_that_nothing_holds_saves_the_closest_miss(digits, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    images, labels = (torch.from_numpy(array) for array in digits["train"])
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    splits = {name: digits[name] for name in ("search", "certification")}
    result = optimize(network, splits, max_drop=0.0075, goal="size", methods=("prune",))
    assert result.outcome is Outcome.NOTHING_HELD
    assert all(candidate.fate in (Fate.MISSED, Fate.REFUSED, Fate.UNTESTED) for candidate in result.tried)
    assert (result.save(tmp_path / "out") / "closest" / "model.onnx").exists()


def test_a_metric_where_lower_is_better_goes_the_whole_way(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(4000, 8)
    network = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1))
    y = network(x).detach() + 0.5 * torch.randn(4000, 1)
    result = optimize(network, (x, y), max_drop=0.05, metric="mse", methods=("quantize",), goal="size")
    assert [twin.name for twin in result.tried] == ["int8", "int8 static"]
    assert all(0.1 < twin.quality.value < 0.5 for twin in result.tried)
    assert result.run.floor == pytest.approx(result.run.base.quality.value + 0.05)
    assert not any(twin.fate in (Fate.FAILED, Fate.MISSED) for twin in result.tried)
    if result.best:
        assert result.certificate.base_quality == pytest.approx(0.25, abs=0.1)
        assert "above" in result.certificate.words()


def test_certifying_again_on_the_same_samples_is_refused_before_any_work(found, perceptron, digits):
    ledger = found.result.certification.seal.ledger.path
    with pytest.raises(CertificateError, match="already been certified on these samples"):
        optimize(perceptron, digits, max_drop=0.03, ledger=ledger)
