"""`tersor compare --max-drop`: a certificate for a file that exists already, against its reference."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tersor.cli.app import run


def linear(path, weights):
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size]) for n, size in (("x", 6), ("y", 2))
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x, weights = (
        rng.standard_normal((2000, 6)).astype(np.float32),
        rng.standard_normal((6, 2)).astype(np.float32),
    )
    np.savez("d.npz", x=x, y=(x @ weights).argmax(1))
    linear("float.onnx", weights)
    linear("close.onnx", weights + np.float32(1e-3))
    linear("wrong.onnx", -weights)
    return tmp_path


def compared(candidate, *more):
    words = ("compare", "float.onnx", candidate, "--data", "npz:d.npz", "--seconds", "0.2", "--json")
    return run([*words, *(() if "--max-drop" in more else ("--max-drop", "2%")), *more])


def test_a_file_that_holds_is_certified_and_one_that_does_not_is_refused(place, capsys):
    assert compared("close.onnx", "-o", "held") == 0
    assert json.loads(capsys.readouterr().out)["certificate"]["holds"]
    assert run(["verify", "held"]) == 0
    assert (place / "held" / "model.onnx").read_bytes() == (place / "close.onnx").read_bytes()
    assert compared("wrong.onnx", "-o", "missed") == 3
    capsys.readouterr()
    assert run(["verify", "missed"]) == 1


def test_what_cannot_be_certified_is_said_before_anything_is_measured(place, capsys):
    assert run(["compare", "float.onnx", "close.onnx", "--max-drop", "2%"]) == 2
    assert "needs `--data`" in capsys.readouterr().err
    (place / "taken").mkdir()
    (place / "taken" / "file").touch()
    assert compared("close.onnx", "-o", "taken") == 1
    assert "exists already" in capsys.readouterr().err
    assert compared("close.onnx", "--max-drop", "0.01%", "-o", "few") == 1
    assert "certification samples cannot show" in capsys.readouterr().err
    assert not (place / "few").exists()
