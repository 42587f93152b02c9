import json
import os
import pickle
import sys
import zipfile

import pytest
import safetensors.torch
import torch
from torch import nn

from tersor.errors import ArgumentError, DataError, ModelError
from tersor.loading.model import load_model
from tersor.loading.references import load_object
from tersor.loading.weights import read_weights

SOURCE = """
import neighbour
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layer = nn.Linear(neighbour.INPUTS, width)

    def forward(self, x):
        return self.layer(x)

def build(width: int = 4):
    return Net(width)

def fails():
    raise RuntimeError("no such thing\\nsecond line")

def wrong():
    return "a string"

ready = Net()
number = 3
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(SOURCE)
    (tmp_path / "neighbour.py").write_text("INPUTS = 3")
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "__init__.py").write_text("")
    (tmp_path / "mypackage" / "models.py").write_text(
        "from torch import nn\ndef build(): return nn.Linear(2, 2)\n"
    )
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith(("mypackage", "neighbour", "train_"))]:
        del sys.modules[name]


def test_a_module_comes_back_as_it_is():
    model = nn.Linear(2, 1)
    assert load_model(model) is model


def test_classes_and_functions_are_called():
    assert isinstance(load_model(nn.Identity), nn.Identity)
    assert load_model(lambda: nn.Linear(2, 3)).out_features == 3


@pytest.mark.parametrize("reference", ["train.py:build", "./train.py:Net", "train.py:ready"])
def test_a_file_reference_takes_a_function_a_class_and_a_module(project, reference):
    assert load_model(reference).layer.weight.shape == (4, 3)


def test_a_package_in_the_working_folder_is_found(project):
    assert load_model("mypackage.models:build").in_features == 2
    assert str(project) not in sys.path


def test_arguments_are_read_as_python_values(project):
    assert load_model("train.py:build", arguments={"width": "7"}).layer.out_features == 7


def test_the_same_file_gives_the_same_class_twice(project):
    assert type(load_model("train.py:build")) is type(load_model("./train.py:build"))


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nosuchpackage.models:build", "does not import: ModuleNotFoundError"),
        ("nosuch.py:build", "no file 'nosuch.py'"),
        ("train.py:biuld", "has no attribute 'biuld'. Did you mean 'build'"),
        ("train.py:number", "is int, neither an nn.Module nor"),
        ("train.py:wrong", "returned str, not an nn.Module"),
        ("train.py:fails", "could not build the model: RuntimeError: no such thing"),
        ("broken.py:build", "does not import: SyntaxError"),
        ("exits.py:build", "does not import: SystemExit"),
        ("model.onnx", "no ONNX file"),
        ("model.keras", "no Keras file"),
        ("model.pt2", "can run code"),
        ("model.h5", "can run code"),
        ("model.pt", "--weights"),
        ("model.safetensors", "--weights"),
        ("model.pkl", "runs code"),
        (".", "no config.json"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_in_one_line(project, reference, words):
    (project / "broken.py").write_text("def build(:\n")
    (project / "exits.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(ModelError) as caught:
        load_model(reference)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_import_leaves_nothing_behind(project):
    (project / "exits.py").write_text("import sys\nsys.exit(3)\n")
    before = set(sys.modules)
    with pytest.raises(ModelError):
        load_model("exits.py:build")
    assert not [name for name in set(sys.modules) - before if name.startswith("exits")]


def test_a_name_without_a_prefix_is_an_error_that_lists_the_readings():
    with pytest.raises(ArgumentError, match=r"module:function.*hf:NAME.*timm:NAME"):
        load_model("resnet18")


def test_arguments_for_a_finished_module_are_refused(project):
    with pytest.raises(ArgumentError, match="takes no arguments"):
        load_model("train.py:ready", arguments={"width": "3"})


def test_an_unknown_argument_says_how_to_pass_it(project):
    with pytest.raises(ModelError, match="--model-arg"):
        load_model("train.py:build", arguments={"depth": "3"})


def test_safetensors_are_loaded_into_a_copy(tmp_path):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    before = target.weight.clone()
    safetensors.torch.save_file(source.state_dict(), tmp_path / "w.safetensors")
    loaded = load_model(target, weights=tmp_path / "w.safetensors")
    assert torch.equal(loaded.weight, source.weight)
    assert torch.equal(target.weight, before)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}]
)
def test_torch_files_of_tensors_are_read(tmp_path, wrap):
    source = nn.Linear(3, 2)
    torch.save(wrap(source.state_dict()), tmp_path / "w.pt")
    assert torch.equal(load_model(nn.Linear(3, 2), weights=tmp_path / "w.pt").weight, source.weight)


def test_a_prefix_of_all_names_is_removed(tmp_path):
    source = nn.Linear(3, 2)
    torch.save({f"module.{k}": v for k, v in source.state_dict().items()}, tmp_path / "w.pth")
    assert torch.equal(load_model(nn.Linear(3, 2), weights=tmp_path / "w.pth").weight, source.weight)


def test_a_name_that_a_file_of_shared_parameters_leaves_out_is_not_missing(tmp_path):
    def tied():
        model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
        model["b"].weight = model["a"].weight
        return model

    source = tied()
    safetensors.torch.save_file(
        {k: v for k, v in source.state_dict().items() if k != "b.weight"}, tmp_path / "w.safetensors"
    )
    assert torch.equal(load_model(tied, weights=tmp_path / "w.safetensors")["b"].weight, source["a"].weight)


def test_weights_that_do_not_fit_are_refused_with_their_names(tmp_path):
    safetensors.torch.save_file(
        {"weight": torch.zeros(2, 5), "other": torch.zeros(1)}, tmp_path / "w.safetensors"
    )
    with pytest.raises(ModelError) as caught:
        load_model(nn.Linear(3, 2), weights=tmp_path / "w.safetensors")
    for part in ("missing bias", "unexpected other", "weight (2, 5) instead of (2, 3)"):
        assert part in str(caught.value)


class Attack:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_pickled_module_is_refused_with_the_globals_that_it_wants(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"torch\.nn\.modules\.linear\.Linear.*--allow-code-execution"):
        read_weights(tmp_path / "w.pt")
    assert set(read_weights(tmp_path / "w.pt", allow_code_execution=True)) == {"weight", "bias"}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_not_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Attack()}, "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="run code"):
        read_weights("w.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ModelError):
        read_weights("raw.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 broken", b"\x80\x02}q\x00."])
def test_a_damaged_file_is_refused_clearly(tmp_path, suffix, content):
    (tmp_path / f"w{suffix}").write_bytes(content)
    with pytest.raises(ModelError, match=f"w{suffix}"):
        read_weights(tmp_path / f"w{suffix}")


def test_a_missing_file_and_an_unknown_format_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no weights file"):
        read_weights(tmp_path / "w.safetensors")
    (tmp_path / "w.h5").write_bytes(b"")
    with pytest.raises(ModelError, match="safetensors"):
        read_weights(tmp_path / "w.h5")


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(100 * 2**20))
    with pytest.raises(ModelError, match="bomb"):
        read_weights(tmp_path / "w.pt")


def test_an_entry_outside_the_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("../evil", b"x")
    with pytest.raises(ModelError, match="outside the archive"):
        read_weights(tmp_path / "w.pt")


def test_an_error_of_tersor_inside_user_code_passes_unchanged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("from tersor.errors import DataError\nraise DataError('mine')\n")
    with pytest.raises(DataError, match=r"^mine$"):
        load_object("own.py:x", ModelError)


transformers = pytest.importorskip("transformers")


@pytest.fixture
def bert(tmp_path):
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "bert")
    return model


def test_a_saved_hugging_face_folder_is_loaded_with_its_own_class(tmp_path, bert):
    loaded = load_model(tmp_path / "bert")
    assert type(loaded) is type(bert)
    assert torch.equal(loaded.classifier.weight, bert.classifier.weight)


@pytest.mark.parametrize(
    "place", [{"auto_map": {"AutoModel": "x.Y"}}, {"text_config": {"trust_remote_code": True}}]
)
def test_a_configuration_that_asks_for_its_own_code_is_refused(tmp_path, bert, place):
    file = tmp_path / "bert" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | place))
    with pytest.raises(ModelError, match="run its own code"):
        load_model(tmp_path / "bert")


def test_a_hub_model_without_network_or_cache_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot be"):
        load_model("hf:no-such-owner/no-such-model@main")


def test_a_pickled_module_is_opened_only_on_the_users_word(tmp_path):
    torch.save(nn.Linear(2, 1), tmp_path / "m.pt")
    with pytest.raises(ModelError, match="--allow-code-execution if it is a whole module"):
        load_model(tmp_path / "m.pt")
    assert isinstance(load_model(tmp_path / "m.pt", allow_code_execution=True), nn.Linear)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="holds dict, not a module"):
        load_model(tmp_path / "w.pt", allow_code_execution=True)
    with pytest.raises(ModelError, match="There is no file"):
        load_model(tmp_path / "none.pt", allow_code_execution=True)
