"""Inputs drawn at random: the same in every process, of the form that a reference or the model itself says."""

import hashlib
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tersor.errors import DataError
from tersor.loading.build import build_task
from tersor.loading.data import load_data
from tersor.loading.declared import drawn_reference
from tersor.loading.drawn import Drawn
from tersor.loading.model import load_model
from tersor.loading.onnx.graph_model import GraphModel

TOKENS = ("input.ids", "attention_mask")


def drawn(reference):
    return load_data(reference)["drawn"]


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5))


def tokens_file(path, axes):
    """Write an ONNX graph that looks its tokens up in a table of 50 rows and averages those that the mask keeps."""
    table = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["table", "input.ids"], ["seen"])]
    nodes += [helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Unsqueeze", ["mask", "last"], ["wide"])]
    nodes += [
        helper.make_node("Mul", ["seen", "wide"], ["kept"]),
        helper.make_node("ReduceMean", ["kept", "one"], ["y"], keepdims=0),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in TOKENS]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    held = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([-1]), "last"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    made = helper.make_graph(nodes, "g", ends, [out], held)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return str(path)


def test_a_sample_depends_on_its_number_alone_and_never_on_its_neighbours():
    source = drawn("random:image=3x4x4,ids=int64:6:0..99")
    alone, together = source.fetch([1234]), source.fetch([7, 1234, 1999])
    assert torch.equal(alone["image"][0], together["image"][1])
    assert torch.equal(alone["ids"][0], together["ids"][1])
    assert not torch.equal(together["image"][0], together["image"][1])


def test_another_process_draws_the_same_inputs_and_another_seed_draws_others():
    words = (
        "import hashlib, sys; from tersor.loading.data import load_data; "
        "x = load_data(sys.argv[1])['drawn'].fetch([0, 5, 1999]); "
        "print(hashlib.sha256(x.numpy().tobytes()).hexdigest())"
    )

    def elsewhere(reference):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"}
        found = subprocess.run(
            [sys.executable, "-c", words, reference],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return found.stdout.strip()

    here = drawn("random:3x8x8").fetch([0, 5, 1999]).numpy().tobytes()
    assert elsewhere("random:3x8x8") == hashlib.sha256(here).hexdigest()
    assert not torch.equal(drawn("random:4?seed=1").fetch([0]), drawn("random:4").fetch([0]))


def test_numbers_have_the_type_and_the_spread_that_the_reference_says():
    x = drawn("random:64").fetch(range(500))
    assert x.dtype == torch.float32
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02
    uniform = drawn("random:64:-1..3").fetch(range(500))
    assert (-1 <= uniform.min() < -0.99, 2.99 < uniform.max() <= 3) == (True, True)
    ids = drawn("random:int32:64:5..7").fetch(range(50))
    assert (ids.dtype, set(ids.flatten().tolist())) == (torch.int32, {5, 6, 7})
    assert set(drawn("random:bool:8").fetch(range(50)).flatten().tolist()) == {False, True}
    assert drawn("random:uint8:8").fetch(range(99)).max() > 200
    assert drawn("random:float64:scalar").fetch([0, 1]).shape == (2,)


def test_its_own_reference_draws_a_source_again():
    for reference in ("random:3x4x4", "random:a=int64:4:0..9,b=float16:2:0..0.5?samples=30&seed=4"):
        source = drawn(reference)
        again = drawn(source.reference)
        assert (again.inputs, len(again), again.seed) == (source.inputs, len(source), source.seed)


WRONG = {
    "no shape": ("random:3x", "shape of one sample"),
    "a size of zero": ("random:3x0", "shape of one sample"),
    "a sample over all memory": ("random:99999x99999x99999", "shape of one sample"),
    "an unknown type": ("random:int6:4", "int64"),
    "one input without a name": ("random:a=4,5", "every input a name"),
    "a name twice": ("random:a=4,a=5", "every input a name"),
    "a range upside down": ("random:4:2..1", "lower end comes first"),
    "a range outside of the type": ("random:uint8:4:-1..4", "no range of uint8"),
    "half an integer": ("random:int64:4:0..1.5", "no range of int64"),
    "no number of samples": ("random:4?samples=many", "whole number"),
    "no samples": ("random:4?samples=0", "at least one"),
    "an unknown option": ("random:4?sample=5", "no option 'sample'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_draws_nothing_is_refused_in_one_line(case):
    reference, words = WRONG[case]
    with pytest.raises(DataError, match=words) as caught:
        load_data(reference)
    assert "\n" not in str(caught.value)


def test_drawn_inputs_are_searched_and_certified_on_but_never_trained_on():
    task, notes = build_task(linear(), "random:3x2x2?samples=1000")
    assert (len(task.train), len(task.search) + len(task.certification)) == (0, 1000)
    assert len(task.certification) > len(task.search) > 100
    assert task.metric.name == "agreement on random inputs"
    assert task.drawn == "random:3x2x2?samples=1000&seed=0"
    assert any("DRAWN AT RANDOM" in line and "not your data" in line for line in notes.warnings)
    assert not any("held-out" in line for line in notes.words())


def test_data_of_the_user_is_never_called_drawn():
    x = np.random.default_rng(0).standard_normal((1000, 3, 2, 2)).astype(np.float32)
    task, notes = build_task(linear(), x)
    assert (task.drawn, task.metric.name) == ("", "agreement")
    assert not any("DRAWN" in line for line in notes.words())


def test_a_model_that_answers_noise_always_alike_is_said_to_show_little():
    model = linear()
    with torch.no_grad():
        model[1].bias[2] += 100
    assert any(
        "ignores its input would reach" in line for line in build_task(model, "random:3x2x2").notes.warnings
    )
    assert not any(
        "ignores its input" in line for line in build_task(linear(), "random:3x2x2").notes.warnings
    )


def test_drawn_inputs_are_no_split_of_data():
    x = np.zeros((40, 3, 2, 2), np.float32)
    for data in ({"train": x, "test": "random:3x2x2"}, {"train": "random:3x2x2"}):
        with pytest.raises(DataError, match="no split of data"):
            build_task(linear(), data)


def test_several_inputs_without_names_are_all_inputs_and_none_a_target():
    class Two(nn.Module):
        def forward(self, a, b=None):
            return a if b is None else a + b

    task, _ = build_task(Two(), "random:4,4")
    assert len(task.inputs) == 2
    assert task.kind == "fidelity"


def test_a_plain_module_is_answered_with_what_to_pass():
    with pytest.raises(DataError, match=r'Sequential does not say what it takes.*data="random:3x224x224"'):
        build_task(linear(), None)


def test_a_file_that_is_converted_says_what_it_takes(tmp_path):
    path = tmp_path / "m.onnx"
    torch.onnx.export(
        linear(),
        (torch.zeros(2, 3, 2, 2),),
        path,
        dynamo=False,
        input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
    )
    model = load_model(str(path))
    assert not isinstance(model, GraphModel)
    assert drawn_reference(model) == "random:3x2x2"
    assert build_task(model, None).task.drawn.startswith("random:3x2x2?")


def test_tokens_of_a_file_are_rows_of_its_table_and_every_position_counts(tmp_path):
    path = tokens_file(tmp_path / "m.onnx", ["n", 6])
    assert drawn_reference(load_model(path)) == "random:input_ids=int64:6:0..49,attention_mask=int64:6:1..1"
    assert build_task(load_model(path), None).task.certification


def test_tokens_of_a_file_that_stays_a_graph_are_rows_of_its_table(tmp_path, with_a_branch):
    path = tokens_file(tmp_path / "m.onnx", ["n", 6])
    model = load_model(with_a_branch(path))
    assert isinstance(model, GraphModel)
    assert drawn_reference(model) == "random:input_ids=int64:6:0..49,attention_mask=int64:6:1..1"


def test_an_open_size_is_asked_for_with_the_words_to_pass(tmp_path):
    path = tokens_file(tmp_path / "m.onnx", ["n", "length"])
    with pytest.raises(DataError) as caught:
        build_task(load_model(path), None)
    said = str(caught.value)
    assert "a size of input_ids and attention_mask open" in said
    reference = "random:input_ids=int64:128:0..49,attention_mask=int64:128:1..1"
    assert f'data="{reference}"' in said
    assert isinstance(drawn(reference), Drawn)


def test_a_keras_model_says_its_shapes_and_its_vocabulary(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    layers = keras.layers
    image = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)])
    assert drawn_reference(load_model(image)) == "random:8x8x1"
    text = [keras.Input((5,), dtype="int32"), layers.Embedding(30, 4), layers.Flatten(), layers.Dense(3)]
    assert drawn_reference(load_model(keras.Sequential(text))) == "random:int32:5:0..29"


def test_a_timm_model_says_the_picture_that_it_was_trained_on():
    timm = pytest.importorskip("timm", exc_type=ImportError)
    model = timm.create_model("resnet18", pretrained=False)
    assert drawn_reference(model) == "random:3x224x224"


def test_a_configuration_of_transformers_says_the_vocabulary_or_the_picture():
    text = nn.Linear(2, 2)
    text.main_input_name, text.config = (
        "input_ids",
        SimpleNamespace(vocab_size=99, max_position_embeddings=64),
    )
    assert drawn_reference(text) == "random:int64:64:0..98"
    picture = nn.Linear(2, 2)
    picture.main_input_name, picture.config = "pixel_values", SimpleNamespace(image_size=32, num_channels=1)
    assert drawn_reference(picture) == "random:1x32x32"
