"""Looking into honest, dangerous and damaged files; nothing in them is ever executed."""

import json
import pickle
import zipfile

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tersor.cli.app import run
from tersor.cli.inspection.findings import Safety
from tersor.cli.inspection.inspect import FORMATS, inspect
from tersor.cli.inspection.pickles import imported_names
from tersor.errors import ModelError


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def graph(*, external=None, domain=""):
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    if external is not None:
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in external.items():
            entry = weight.external_data.add()
            entry.key, entry.value = key, value
    nodes = [helper.make_node("Add", ["x", "w"], ["y"], domain=domain)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def test_files_of_arrays_are_data_and_list_their_arrays(tmp_path):
    arrays = {"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.int64)}
    np.savez(tmp_path / "a.npz", **arrays)
    np.save(tmp_path / "a.npy", arrays["a"])
    safetensors.numpy.save_file(arrays, tmp_path / "a.safetensors")
    torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, tmp_path / "a.pt")
    (tmp_path / "a.onnx").write_bytes(graph())
    for name, count in (("a.npz", 2), ("a.npy", 1), ("a.safetensors", 2), ("a.pt", 2), ("a.onnx", 1)):
        found = inspect(tmp_path / name)
        assert found.safe, (name, found.content.reasons)
        assert len(found.content.tensors) == count, name


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.ckpt", "m.bin", "m.pkl", "m.pickle", "m.joblib"])
def test_a_pickle_with_a_payload_is_named_and_not_run(name, tmp_path):
    mark = tmp_path / "mark"
    if name[1:] in (".pkl", ".pickle", ".joblib"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload(mark)))
    else:
        torch.save({"w": torch.zeros(2), "p": Payload(mark)}, tmp_path / name)
    found = inspect(tmp_path / name)
    assert found.content.safety is Safety.CODE
    assert "open" in found.content.reasons[0]
    assert not mark.exists()


def test_old_torch_files_are_read_as_bare_pickles(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt", _use_new_zipfile_serialization=False)
    assert inspect(tmp_path / "old.pt").safe
    assert "Linear" in inspect(tmp_path / "module.pt").content.reasons[0]


def test_a_name_that_is_hidden_from_the_opcodes_counts_as_unknown():
    # Push the harmless name, then put another one in its place through the memo.
    hidden = (
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x0bcollections\x8c\x0bOrderedDict00h\x00h\x01\x93."
    )
    assert "?" in imported_names(hidden)


def test_programs_count_as_code(tmp_path):
    x = torch.zeros(1, 2)
    torch.export.save(torch.export.export(torch.nn.Linear(2, 1), (x,)), tmp_path / "p.pt2")
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 1), x), tmp_path / "s.pt")
    assert inspect(tmp_path / "p.pt2").content.safety is Safety.CODE
    assert "TorchScript" in inspect(tmp_path / "s.pt").content.kind


def test_object_arrays_count_as_code(tmp_path):
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    assert inspect(tmp_path / "o.npz").content.safety is Safety.CODE


def test_keras_archives_tell_layers_and_lambdas(tmp_path):
    def write(name, *layers):
        config = {"module": "keras.src.models", "class_name": "Sequential", "config": {"layers": [
            {"module": "keras.layers", "class_name": layer, "config": {}} for layer in layers
        ]}}  # fmt: skip
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')

    write("good.keras", "Dense", "ReLU")
    write("bad.keras", "Dense", "Lambda")
    assert inspect(tmp_path / "good.keras").safe
    assert "Dense, ReLU" in inspect(tmp_path / "good.keras").content.facts["layers"]
    assert "Lambda" in inspect(tmp_path / "bad.keras").content.reasons[0]


def test_hdf5_models_are_judged_by_their_configuration(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["w"] = np.zeros((2, 2))
        file.attrs["model_config"] = json.dumps({"class_name": "Lambda", "module": "keras.layers"})
    found = inspect(tmp_path / "m.h5")
    assert found.content.safety is Safety.CODE
    assert found.content.tensors[0].shape == (2, 2)


@pytest.mark.parametrize(
    ("external", "expected"),
    [
        ({"location": "../secret"}, "outside"),
        ({"location": "/etc/passwd"}, "no relative path"),
        ({"location": "C:\\secret"}, "no relative path"),
        ({"location": "\\\\host\\share"}, "no relative path"),
        ({"location": "gone.bin"}, "missing"),
        ({"location": "hard.bin"}, "hard link"),
        ({"location": "soft.bin"}, "link"),
        ({"location": "w.bin", "offset": "4", "length": "8"}, "beyond the end"),
    ],
)
def test_onnx_weights_outside_of_the_folder_are_refused(external, expected, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"12345678")
    (folder / "w.bin").write_bytes(b"12345678")
    (folder / "hard.bin").hardlink_to(tmp_path / "secret")
    (folder / "soft.bin").symlink_to(tmp_path / "secret")
    (folder / "m.onnx").write_bytes(graph(external=external))
    found = inspect(folder / "m.onnx")
    assert found.content.safety is Safety.BROKEN
    assert expected in found.content.reasons[0]
    (folder / "good.onnx").write_bytes(graph(external={"location": "w.bin", "length": "8"}))
    assert inspect(folder / "good.onnx").safe


def test_foreign_operators_need_a_library(tmp_path):
    (tmp_path / "m.onnx").write_bytes(graph(domain="com.evil"))
    assert inspect(tmp_path / "m.onnx").content.safety is Safety.CODE


def test_an_openvino_file_with_entities_is_refused(tmp_path):
    (tmp_path / "m.xml").write_text('<!DOCTYPE x [<!ENTITY a "aa">]><net><layers/></net>')
    assert inspect(tmp_path / "m.xml").content.safety is Safety.BROKEN


def test_a_hub_folder_that_wants_its_own_code_says_so(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"vision": {"auto_map": {"AutoModel": "x.py"}}}))
    found = inspect(tmp_path)
    assert found.content.safety is Safety.CODE
    assert "auto_map" in found.content.reasons[0]


def test_the_command_exits_with_the_verdict_and_shows_no_control_codes(tmp_path, capsys):
    tensors = {"\x1b[31mred": np.zeros(1, np.float32)}
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
    assert run(["inspect", str(tmp_path / "w.safetensors")]) == 0
    assert "\x1b" not in capsys.readouterr().out
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "mark")))
    assert run(["inspect", str(tmp_path / "x.pkl"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["safe"] is False


@settings(max_examples=150, deadline=None)
@given(suffix=st.sampled_from(sorted(FORMATS)), data=st.binary(min_size=1, max_size=300))
def test_no_bytes_make_an_inspection_fail(suffix, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / f"file{suffix}"
    path.write_bytes(data)
    found = inspect(path)
    assert isinstance(found.content.safety, Safety)
    assert json.loads(found.to_json())["kind"]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_flipped_bytes_in_real_files_make_an_inspection_fail(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flip")
    name = data.draw(st.sampled_from(["a.npz", "a.pt", "a.safetensors", "a.onnx", "a.npy"]))
    path = folder / name
    if name == "a.npz":
        np.savez(path, x=np.zeros(3))
    elif name == "a.npy":
        np.save(path, np.zeros(3))
    elif name == "a.pt":
        torch.save({"w": torch.zeros(2)}, path)
    elif name == "a.onnx":
        path.write_bytes(graph())
    else:
        safetensors.numpy.save_file({"w": np.zeros(2)}, path)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    assert isinstance(inspect(path).content.safety, Safety)


def test_an_unknown_suffix_lists_those_that_are_read(tmp_path):
    (tmp_path / "x.docx").write_text("x")
    with pytest.raises(ModelError, match="safetensors"):
        inspect(tmp_path / "x.docx")


def test_the_helper_graph_is_a_real_model(tmp_path):
    onnx.checker.check_model(onnx.load_from_string(graph()))
