"""A search of a model alone: what it may use, what it claims, and that every document says on what."""

import json
import shutil

import onnx
import pytest
import torch
from torch import nn

from tersor.certification.certificate import Certificate, Claim
from tersor.certification.verify import Verdict, verify
from tersor.cli.app import run
from tersor.errors import ArgumentError
from tersor.search.asked import read_asked
from tersor.search.optimize import optimize
from tersor.search.outcome import Fate, Outcome
from tersor.search.resume import resume

ASKED = {"max_drop": 0.05, "goal": "size"}


@pytest.fixture(scope="module")
def file(tmp_path_factory, perceptron):
    path = tmp_path_factory.mktemp("alone") / "model.onnx"
    axes = {"x": {0: "n"}}
    torch.onnx.export(
        perceptron.eval(),
        (torch.zeros(2, 1, 8, 8),),
        path,
        dynamo=False,
        input_names=["x"],
        dynamic_axes=axes,
    )
    return path


@pytest.fixture(scope="module")
def found(file):
    """Return the result of a search that was killed before it measured and then went on, and what both said."""
    said, out = [], file.parent / "out"

    def kill(event):
        said.append(event.text)
        if event.phase == "measure":
            raise SystemExit

    with pytest.raises(SystemExit):
        optimize(str(file), **ASKED, output=out, on_event=kill)
    result = resume(out, on_event=lambda event: said.append(event.text))
    result.save(out)
    return result, said, out


def test_a_file_alone_comes_out_smaller_by_methods_that_learn_nothing(found):
    result, said, _ = found
    assert result.outcome is Outcome.IMPROVED
    assert result.artefact.size_bytes < 0.5 * result.run.base.artefact.size_bytes
    assert {candidate.name for candidate in result.tried} == {"int8", "int8 weights", "int4 weights"}
    assert not any(candidate.fate is Fate.FAILED for candidate in result.tried)
    assert not any("static" in step for candidate in result.tried for step in candidate.steps)
    assert any("nothing is learnt" in line for line in said)
    assert result.run.request.methods == ("quantize", "weight_only")


def test_the_search_that_goes_on_draws_by_the_reference_that_was_written_down(found):
    _, said, out = found
    assert read_asked(out / "search").data == "random:1x8x8?samples=2000&seed=0"
    assert any("made before" in line for line in said)


def test_the_certificate_says_first_that_the_inputs_are_not_data(found):
    result, _, out = found
    assert result.certificate.claim.drawn == "random:1x8x8?samples=2000&seed=0"
    words = result.certificate.words()
    assert words.startswith("RANDOM INPUTS, NO LABELS: the inputs were drawn at random (random:1x8x8?")
    assert "nothing about real ones" in words
    assert "`--data`" in words
    assert "on inputs drawn as the" in words
    verification = verify(out)
    assert verification.verdict is Verdict.VERIFIED
    assert "says nothing about real ones" in verification.words()


def test_report_card_and_last_line_say_it_too(found):
    result, _, out = found
    record = result.record()
    assert record.aim.drawn == "random:1x8x8?samples=2000&seed=0"
    assert "agreement on random inputs" in record.verdict.sentence
    assert "sealed inputs drawn at random" in record.verdict.sentence
    assert "`--data`" in record.verdict.advice
    assert any("DRAWN AT RANDOM" in warning for warning in record.warnings)
    card = (out / "README.md").read_text()
    assert '"dataset": {"name": "inputs drawn at random", "type": "random"}' in card
    for page in (card, (out / "report.html").read_text()):
        assert "DRAWN AT RANDOM" in page
        assert "not your data" in page


def test_an_edited_claim_about_its_inputs_does_not_verify(found, tmp_path):
    _, _, out = found
    folder = shutil.copytree(out, tmp_path / "edited")
    content = json.loads((folder / "certificate.json").read_text())
    del content["claim"]["drawn"]
    edited = Certificate.from_json(json.dumps(content)).to_json()
    (folder / "certificate.json").write_text(edited)
    assert verify(folder).verdict is Verdict.BROKEN


def test_a_certificate_about_data_does_not_mention_inputs_drawn_at_random(found):
    result, _, _ = found
    content = json.loads(result.certificate.to_json())
    assert content["claim"].pop("drawn")
    plain = Certificate.from_json(json.dumps(content))
    assert plain.claim == Claim("agreement on random inputs", 0.05, labelled=False)
    assert "drawn" not in plain.to_json()
    assert "RANDOM INPUTS" not in plain.words()


@pytest.mark.parametrize("methods", [("prune",), ("quantize", "distill"), ("factorize", "drop")])
def test_a_method_that_learns_from_data_is_refused_with_the_reason(file, methods):
    with pytest.raises(ArgumentError, match=r"learns? from data.*Pass your data"):
        optimize(str(file), **ASKED, methods=methods)


def test_a_network_for_which_only_static_ranges_would_pay_is_told_to_bring_data():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    network[0].weight.data *= 4
    said = []
    result = optimize(
        network,
        "random:1x4x4?samples=1200",
        max_drop=0.05,
        goal="size",
        methods=("quantize",),
        on_event=said.append,
    )
    assert not any("static" in step for candidate in result.tried for step in candidate.steps)
    assert "Pass your data" in result.record().verdict.advice


def test_the_command_line_takes_a_file_without_data(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["optimize", str(file), "--max-drop", "5%", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "DRAWN AT RANDOM" in said
    assert "method  prune: learns from data" in said
    assert run(["optimize", str(file), "--max-drop", "5%", "--methods", "prune", "-o", "out"]) == 2
    assert "Pass your data" in capsys.readouterr().err


def test_rounding_alone_takes_no_ranges_from_drawn_inputs(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["quantize", str(file), "--data", "random:1x8x8", "-o"]
    assert run([*asked, "static.onnx", "--scheme", "static"]) == 2
    assert "taken from data" in capsys.readouterr().err
    assert run([*asked, "int8.onnx"]) == 0
    assert "not your data" in capsys.readouterr().out
    assert "DynamicQuantizeLinear" in {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}


def test_cutting_and_training_refuse_drawn_inputs(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["prune", str(file), "--ratio", "0.3", "--data", "random:1x8x8"]) == 2
    assert "learn from data" in capsys.readouterr().err
    assert run(["train", str(file), "--data", "random:1x8x8"]) == 1
    assert "no labels" in capsys.readouterr().err


def test_the_free_baselines_are_raced_without_data(file, monkeypatch, capsys):
    monkeypatch.setattr("tersor.measurement.race.installed", lambda: ("onnxruntime",))
    assert run(["bench", str(file), "--seconds", "0.2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fastest"]
