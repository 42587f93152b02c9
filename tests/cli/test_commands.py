"""Every command once, on a small network, through the same function that the shell calls."""

import json

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from tersor.cli.app import run
from tersor.loading.model import load_model
from tersor.reporting.folder import write_folder
from tersor.reporting.record import Aim, Record, Row, Standing, Verdict
from tersor.surgery.store import load

MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(12 * 36, 3),
    )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    rng = np.random.default_rng(0)
    (folder / "net.py").write_text(MODEL)
    x = rng.normal(size=(600, 1, 6, 6)).astype("float32")
    np.savez(folder / "d.npz", x=x, y=rng.integers(0, 3, 600))
    return folder


@pytest.fixture
def place(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def answer(capsys, *words):
    status = run([*words, "--json"])
    shown = capsys.readouterr()
    assert status == 0, shown.err
    return json.loads(shown.out)


@pytest.fixture
def exported(place, capsys):
    if not (place / "model.onnx").exists():
        answer(capsys, "export", "net.py:build", "--to", "onnx", "--input", "2x1x6x6")
    return "model.onnx"


def test_export_writes_a_file_that_compares_and_evaluates_as_its_model(exported, capsys):
    by_file = answer(capsys, "eval", exported, "--data", "npz:d.npz")
    by_model = answer(capsys, "eval", "net.py:build", "--data", "npz:d.npz")
    assert by_file["value"] == pytest.approx(by_model["value"])
    assert by_file["samples"] == by_model["samples"]


def test_a_graph_of_openvino_computes_as_the_model(place, capsys):
    pytest.importorskip("openvino")
    answer(capsys, "export", "net.py:build", "--to", "openvino", "--input", "2x1x6x6", "-o", "ir.xml")
    assert (place / "ir.bin").exists()
    assert not (place / "ir.onnx").exists()
    by_file = answer(capsys, "eval", "ir.xml", "--data", "npz:d.npz")
    assert by_file["value"] == pytest.approx(
        answer(capsys, "eval", "net.py:build", "--data", "npz:d.npz")["value"]
    )


def test_an_ending_that_the_runtime_does_not_open_is_a_usage_error(place, capsys):
    assert run(["export", "net.py:build", "--input", "2x1x6x6", "-o", "m.xml"]) == 2
    assert "ends in .onnx" in capsys.readouterr().err


@pytest.fixture
def keras_file(place, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras runs on another backend here")
    dense = keras.layers.Dense
    model = keras.Sequential([keras.layers.Input((6,)), dense(16, activation="relu"), dense(3)])
    model.save(place / "mlp.keras")
    return "mlp.keras"


def test_a_network_from_keras_goes_back_with_weights_that_were_trained_here(keras_file, place, capsys):
    module = load_model(keras_file)
    weights = {name: t.detach() + 0.25 for name, t in module.state_dict().items()}
    save_file(weights, place / "trained.safetensors")
    more = ("--weights", "trained.safetensors", "--to", "keras", "-o", "trained.keras")
    found = answer(capsys, "export", keras_file, *more)
    assert found["path"] == "trained.keras"
    assert found["size_bytes"] == (place / "trained.keras").stat().st_size
    x, again = torch.randn(4, 6), load_model("trained.keras")
    module.load_state_dict(weights)
    torch.testing.assert_close(again(x), module(x))


def test_pruning_a_network_from_keras_also_writes_it_as_keras(keras_file, place, capsys):
    found = answer(capsys, "prune", keras_file, "--ratio", "0.5", "--input", "2x6", "-o", "thin")
    assert found["parameters"][1] < found["parameters"][0]
    again = load_model("thin/model.keras")
    assert sum(p.numel() for p in again.parameters()) == found["parameters"][1]


@pytest.mark.parametrize(
    ("model", "more", "expected"),
    [
        ("net.py:build", (), "did not come from a Keras model"),
        ("mlp.keras", ("--input", "2x6"), "leave out"),
        ("mlp.keras", ("-o", "m.onnx"), "ends in .keras"),
    ],
)
def test_what_does_not_go_back_to_keras_is_refused(model, more, expected, keras_file, place, capsys):
    assert run(["export", model, "--to", "keras", *(more or ("-o", "refused.keras"))]) in (1, 2)
    assert expected in capsys.readouterr().err
    assert not (place / "refused.keras").exists()
    assert not (place / "model.keras").exists()


def test_export_refuses_to_replace_a_file(exported, capsys):
    assert run(["export", "net.py:build", "--input", "2x1x6x6", "-o", exported]) == 1
    assert "exists" in capsys.readouterr().err


def test_compare_without_data_takes_the_shapes_of_the_file(exported, capsys):
    found = answer(capsys, "compare", exported, exported, "--seconds", "0.2")
    assert found["speed"]["low"] <= found["speed"]["ratio"] <= found["speed"]["high"]
    assert found["quality"] is None


def test_prune_writes_a_folder_that_loads_as_the_users_class_and_runs_as_onnx(place, capsys):
    found = answer(
        capsys,
        "prune",
        "net.py:build",
        "--ratio",
        "0.5",
        "--data",
        "npz:d.npz",
        "-o",
        "small",
        "--criterion",
        "fisher",
    )
    assert found["macs"][1] <= 0.5 * found["macs"][0]
    names: dict = {}
    exec(MODEL, names)
    small = load(names["build"], "small").eval()
    x = torch.randn(3, 1, 6, 6)
    import onnxruntime

    session = onnxruntime.InferenceSession("small/model.onnx")
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(small(x).detach().numpy(), y, atol=1e-5)


def test_quantize_writes_integers(place, capsys):
    found = answer(
        capsys, "quantize", "net.py:build", "--data", "npz:d.npz", "-o", "q.onnx", "--samples", "64"
    )
    assert len(found["layers"]) == 3
    kinds = {node.op_type for node in onnx.load("q.onnx").graph.node}
    assert "QuantizeLinear" in kinds or "DequantizeLinear" in kinds


def test_groups_say_what_can_be_pruned(place, capsys):
    found = answer(capsys, "groups", "net.py:build", "--input", "2x1x6x6")
    assert [group["units"] for group in found["groups"] if group["prunable"]] == [8, 12]


def test_check_as_json_tells_the_splits(place, capsys):
    found = answer(capsys, "check", "net.py:build", "--data", "npz:d.npz")
    assert any(line.startswith("train") for line in found["split"])
    assert found["groups"]


def test_doctor_knows_the_runtimes_and_the_extras_without_torch(capsys):
    found = answer(capsys, "doctor")
    assert found["runtimes"]["onnxruntime"] == ""
    assert "sklearn" in found["extras"]
    assert found["machine"]["usable_threads"] >= 1


COPIES = """
import numpy as np

def splits():
    d = np.load("d.npz")
    test, train = (d["x"][:400], d["y"][:400]), (d["x"][398:], d["y"][398:])
    return {"train": train, "test": test}
"""


def test_copies_of_sealed_samples_are_left_out_where_asked_for_or_where_they_do_no_harm(place, capsys):
    (place / "copies.py").write_text(COPIES)
    words = ("net.py:build", "--data", "copies.py:splits")
    for command in ("check", "train"):
        assert run([command, *words]) == 1
        assert "--leave-out-copies" in capsys.readouterr().err
    shown = answer(capsys, "check", *words, "--leave-out-copies")
    assert any("2 train samples left out" in line for line in shown["split"])
    more = ("--leave-out-copies", "--epochs", "0.5", "--optimizer", "sgd", "-o", "learned")
    answer(capsys, "train", *words, *more)
    answer(capsys, "eval", *words)
    answer(capsys, "groups", *words)


def written(folder, outcome):
    verdict = Verdict(outcome=outcome, standing=Standing.UNTESTED, sentence="As a test has it.")
    aim = Aim(kind="classification", model="net", metric="accuracy", higher_is_better=True, limit="none")
    record = Record(
        title="t",
        created="2026-01-31T12:00:00+00:00",
        tersor_version="0",
        aim=aim,
        verdict=verdict,
        base=Row(name="original"),
    )
    write_folder(folder, record, files={})


def test_verify_says_what_it_expects_where_there_is_no_certificate(place, capsys):
    written(place / "original", "nothing_better")
    written(place / "robbed", "improved")
    (place / "unfinished").mkdir()
    (place / "unfinished" / "DONE.json").write_text("{}")
    expected = {
        "net.py": (2, "is a file"),
        "gone": (2, "does not exist"),
        ".": (2, "holds none"),
        "original": (1, "nothing better was certified"),
        "robbed": (1, "taken away"),
        "unfinished": (1, "tersor resume unfinished"),
    }
    for folder, (status, words) in expected.items():
        assert run(["verify", folder]) == status
        (said,) = capsys.readouterr().err.splitlines()
        assert words in said


def test_a_model_without_anything_to_run_it_on_is_a_usage_error(place, capsys):
    assert run(["groups", "net.py:build"]) == 2
    assert "--input 2x3x224x224" in capsys.readouterr().err
