"""Searches of ONNX files that stay graphs, from the file to the certificate; files that are quantized already."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch

from tersor.certification.verify import Verdict, verify
from tersor.errors import ArgumentError
from tersor.exporting.export import export
from tersor.loading.model import load_model
from tersor.search.optimize import optimize
from tersor.search.outcome import Fate, Outcome
from tersor.search.request import METHODS
from tersor.search.resume import resume

ASKED = {"max_drop": 0.03, "goal": "size"}


@pytest.fixture(scope="module")
def places(tmp_path_factory, perceptron, digits, with_a_branch):
    """Return the trained perceptron as ONNX files: in floating point, with an If, and quantized in two ways."""
    from onnxruntime.quantization import QuantFormat, quantize_dynamic, quantize_static

    folder = tmp_path_factory.mktemp("graphs")
    images = digits["train"][0][:128]
    plain = folder / "plain.onnx"
    name = export(perceptron, (torch.from_numpy(images[:2]),), plain).inputs[0]
    with_a_branch(shutil.copy(plain, folder / "branch.onnx"))
    left = iter([{name: images}])
    reader = type("Reader", (), {"get_next": lambda _: next(left, None)})()
    quantize_static(
        _bare(plain), folder / "static.onnx", reader, quant_format=QuantFormat.QDQ, per_channel=True
    )
    quantize_dynamic(_bare(plain), folder / "dynamic.onnx")
    return folder


def _bare(path):
    """Return a graph without the shapes that its exporter noted, which do not survive the quantizer's rewriting."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    return model


@pytest.fixture(scope="module")
def found(places, digits):
    """Return the result of a search that was killed before it measured and then went on, and what both said."""
    said, out = [], places / "out"

    def kill(event):
        said.append(event.text)
        if event.phase == "measure":
            raise SystemExit

    with pytest.raises(SystemExit):
        optimize(str(places / "branch.onnx"), digits, **ASKED, output=out, on_event=kill)
    result = resume(out, data=digits, on_event=lambda event: said.append(event.text))
    result.save(out)
    return result, said, out


def test_a_file_that_does_not_convert_comes_out_certified_and_smaller(found):
    result, said, _ = found
    assert result.outcome is Outcome.IMPROVED
    assert result.certificate.holds
    assert result.artefact.size_bytes < 0.4 * result.run.base.artefact.size_bytes
    names = {candidate.name for candidate in result.tried}
    assert {"fused", "float16", "int8", "int8 static", "int8 weights", "int4 weights"} <= names
    assert not any(candidate.fate is Fate.FAILED for candidate in result.tried)
    assert any("If (1x, first 'branch')" in line for line in said)
    assert any("left out" in line and "prune" in line for line in said)


def test_what_it_ships_answers_as_its_module_and_the_report_names_the_rounded_layers(found, digits):
    import onnxruntime

    result, _, out = found
    images = digits["search"][0][:64]
    session = onnxruntime.InferenceSession(out / "model.onnx")
    answers = session.run(None, {session.get_inputs()[0].name: images})[0]
    np.testing.assert_allclose(result.model(torch.from_numpy(images)), answers, rtol=1e-5, atol=1e-5)
    report = json.loads((out / "report.json").read_text())
    rounded = [layer["name"] for layer in report["layers"] if "integers" in layer["change"]]
    sites = [edit["site"] for edit in json.loads((out / "plan.json").read_text())]
    assert rounded == sites
    assert "If (1x" in (out / "report.html").read_text()
    assert verify(out).verdict is Verdict.VERIFIED


def test_it_goes_on_from_what_was_made(found):
    result, said, _ = found
    assert sum("made before" in line for line in said) == len(result.tried)
    assert result.best.model.integers
    assert result.best.float_model is result.run.task.model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["static", "dynamic"])
def test_a_file_that_is_quantized_already_is_measured_and_not_rounded_again(places, digits, name):
    said = []
    model = load_model(str(places / f"{name}.onnx"))
    assert model.quantized
    result = optimize(model, digits, **ASKED, on_event=lambda event: said.append(event.text))
    assert {candidate.name for candidate in result.tried} == {"fused"}
    assert any("quantized already (3 nodes in integers)" in line for line in said)
    assert any("pass the floating-point model" in line for line in said)
    assert len(result.run.baselines) >= 3
    kept = load_model(str(result.artefact.path))
    assert kept.quantized


def test_methods_that_need_layers_are_refused_when_asked_for_by_name(places, digits):
    path = str(places / "branch.onnx")
    for method in set(METHODS) - {"quantize", "weight_only"}:
        with pytest.raises(ArgumentError, match=rf"{method} needs layers of torch.*If.*choose of quantize"):
            optimize(path, digits, **ASKED, methods=(method, "quantize"))


def test_unknown_nodes_to_leave_alone_are_refused(places, digits):
    with pytest.raises(ArgumentError, match=r"matches nothing.*Names look like"):
        optimize(str(places / "branch.onnx"), digits, **ASKED, leave=("nothing",))


@pytest.mark.slow
def test_nodes_are_left_alone(places, digits):
    path = str(places / "branch.onnx")
    first, *_ = load_model(path).layers
    result = optimize(path, digits, **ASKED, methods=("quantize",), leave=(first,), max_candidates=2)
    assert all(first not in [edit.site for edit in candidate.plan.edits] for candidate in result.tried)
    assert any(candidate.plan.edits for candidate in result.tried)
