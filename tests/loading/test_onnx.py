"""ONNX graphs become torch modules that answer as ONNX Runtime does; files that reach out of their folder are not."""

import os
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from tersor.errors import ArgumentError, ModelError
from tersor.loading.build import build_task
from tersor.loading.model import load_model
from tersor.loading.onnx.convert import read_onnx
from tersor.loading.onnx.guard import read_graph
from tersor.loading.onnx.values import module_name
from tersor.search.verbs import prune


def convolutional():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


class Sentence(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.top = nn.Linear(16, 2)

    def forward(self, tokens):
        return self.top(self.encoder(self.table(tokens)).mean(1))


NETWORKS = {
    "table": (
        lambda: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4), nn.Softmax(-1)),
        torch.randn(2, 8),
    ),
    "image": (convolutional, torch.randn(2, 3, 20, 20)),
    "text": (Sentence, torch.randint(0, 20, (2, 7))),
}


def exported(name, path, *, open_batch=True):
    torch.manual_seed(0)
    make, inputs = NETWORKS[name]
    model = make().eval()
    axes = {"x": {0: "batch"}} if open_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (inputs,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return model, path


def answers(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_graph_answers_as_the_runtime_and_keeps_the_names_of_its_weights(name, tmp_path):
    model, path = exported(name, tmp_path / "m.onnx")
    module = read_onnx(path)
    inputs = NETWORKS[name][1]
    torch.testing.assert_close(module(inputs), answers(path, inputs), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(inputs), model(inputs), rtol=1e-4, atol=1e-5)
    if name == "table":
        assert {n for n, _ in module.named_parameters()} == {n for n, _ in model.named_parameters()}
        assert isinstance(module.get_submodule("0"), nn.Linear)
    if name == "text":
        assert isinstance(module.get_submodule("encoder.linear1"), nn.Linear)


@pytest.mark.parametrize("name", ["table", "image"])
def test_a_graph_with_a_fixed_batch_takes_any_batch(name, tmp_path):
    model, path = exported(name, tmp_path / "m.onnx", open_batch=False)
    module, inputs = read_onnx(path), torch.cat([NETWORKS[name][1]] * 2)[:3]
    torch.testing.assert_close(module(inputs), model(inputs), rtol=1e-4, atol=1e-5)


def test_a_graph_that_mixes_its_fixed_batch_with_other_axes_is_refused_with_what_to_do(tmp_path):
    _, path = exported("text", tmp_path / "m.onnx", open_batch=False)
    with pytest.raises(ModelError, match="Export it with an open batch axis"):
        read_onnx(path)


@pytest.mark.parametrize("name", ["image", "text"])
def test_a_converted_graph_is_pruned_and_bound_to_data(name, tmp_path):
    _, path = exported(name, tmp_path / "m.onnx")
    module, inputs = load_model(path), NETWORKS[name][1]
    small, plan = prune(module, inputs, ratio=0.3, by="uniform")
    assert len(plan.edits) == {"image": 1, "text": 3}[name]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in module.parameters())
    x = torch.cat([inputs + i for i in range(4)] * 20) % 20 if name == "text" else torch.randn(160, 3, 20, 20)
    if name == "image":
        task, _ = build_task(small, (x, torch.arange(len(x)) % 3))
        assert task.kind == "classification"


def graph(nodes, inputs, outputs, weights=(), opset=17):
    typed = lambda names: [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in names]
    made = helper.make_graph(nodes, "g", typed(inputs), typed(outputs), list(weights))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model, path):
    onnx.save(model, path)
    return path


def constant(name, values, kind=TensorProto.INT64):
    values = np.asarray(values)
    return helper.make_tensor(name, kind, values.shape, values.flatten().tolist())


NODES = {
    "uneven padding": [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[0, 0, 1, 1])],
    "same": [
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    ],
    "mean": [helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
    "hard": [helper.make_node("HardSigmoid", ["x"], ["y"], alpha=0.3, beta=0.4)],
    "reduce": [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)],
    "norm": [helper.make_node("ReduceL2", ["x"], ["y"], axes=[1], keepdims=1)],
    "transpose": [helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])],
    "split": [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("Concat", ["c", "a"], ["y"], axis=1),
    ],
    "slice": [helper.make_node("Slice", ["x", "starts", "ends", "axes", "steps"], ["y"])],
    "gather": [helper.make_node("Gather", ["x", "rows"], ["y"], axis=2)],
    "pad": [helper.make_node("Pad", ["x", "pads"], ["y"], mode="reflect")],
    "where": [
        helper.make_node("Greater", ["x", "zero"], ["a"]),
        helper.make_node("Exp", ["x"], ["b"]),
        helper.make_node("Where", ["a", "b", "x"], ["y"]),
    ],
    "sizes": [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "none"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "none1"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ],
    "resize": [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")],
    "clip": [helper.make_node("Clip", ["x", "low"], ["y"])],
}
EXTRA = {
    "starts": constant("starts", [1, -3]),
    "ends": constant("ends", [2**62, -1]),
    "axes": constant("axes", [1, 3]),
    "steps": constant("steps", [2, 1]),
    "rows": constant("rows", [[0, -1], [2, 2]]),
    "pads": constant("pads", [0, 0, 1, 0, 0, 0, 1, 2]),
    "zero": constant("zero", 0.0, TensorProto.FLOAT),
    "none": constant("none", 0),
    "none1": constant("none1", [0]),
    "rest": constant("rest", [-1, 5]),
    "scales": constant("scales", [1.0, 1.0, 2.0, 2.0], TensorProto.FLOAT),
    "low": constant("low", -0.25, TensorProto.FLOAT),
}


@pytest.mark.parametrize("name", NODES)
def test_single_operators_answer_as_the_runtime(name, tmp_path):
    used = {n for node in NODES[name] for n in node.input}
    weights = [EXTRA[n] for n in EXTRA if n in used]
    rank = {"reduce": 2, "gather": 5, "sizes": 3}.get(name, 4)
    ends = [("x", ["n", 4, 6, 5])], [("y", list("abcde")[:rank])]
    path = saved(graph(NODES[name], *ends, weights), tmp_path / "m.onnx")
    inputs = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(read_onnx(path)(inputs), answers(path, inputs), rtol=1e-4, atol=1e-5)


def test_an_operator_without_counterpart_is_named(tmp_path):
    path = saved(
        graph([helper.make_node("Det", ["x"], ["y"])], [("x", ["n", 3, 3])], [("y", ["n"])]),
        tmp_path / "m.onnx",
    )
    with pytest.raises(ModelError, match=r"not converted: Det \(1x, first 'y'\)\. Converted are Abs, "):
        read_onnx(path)
    negative = [constant(n, v) for n, v in (("s", [-1]), ("e", [-9]), ("a", [1]), ("t", [-1]))]
    nodes = [helper.make_node("Slice", ["x", "s", "e", "a", "t"], ["y"], name="backwards")]
    path = saved(graph(nodes, [("x", ["n", 4])], [("y", ["n", "k"])], negative), tmp_path / "m.onnx")
    with pytest.raises(
        ModelError, match="Slice 'backwards' cannot be converted: a slice with a negative step"
    ):
        read_onnx(path)


def test_a_quantized_graph_is_refused_with_what_to_pass(tmp_path):
    scale = [constant("scale", 0.1, TensorProto.FLOAT), constant("zero", 0, TensorProto.UINT8)]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    path = saved(graph(nodes, [("x", ["n", 4])], [("y", ["n", "k"])], scale), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="quantized already: pass the floating-point model"):
        read_onnx(path)


def test_a_conversion_that_answers_differently_is_refused(tmp_path, monkeypatch):
    from tersor.loading.onnx.convert import OPERATORS

    monkeypatch.setitem(OPERATORS, "HardSwish", OPERATORS["Relu"])
    _, path = exported("image", tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"answers differently from ONNX Runtime, by \d.*allowed is 1e-04"):
        read_onnx(path)


def external(folder, location, **entries):
    """Write a model whose only weight is said to lie at `location`."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = graph(nodes, [("x", ["n", 4])], [("y", ["n", 4])], [weight])
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


WEIGHTS = np.arange(16, dtype=np.float32).tobytes()


def test_weights_beside_the_model_are_read(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(b"skip" + WEIGHTS)
    module = read_onnx(external(tmp_path, "data/w.bin", offset=4, length=64))
    assert float(module(torch.ones(1, 4)).detach()[0, 0]) == 0 + 4 + 8 + 12


def hard_link(folder):
    (folder / "secret").write_bytes(WEIGHTS)
    os.link(folder / "secret", folder / "model" / "w.bin")


def soft_link(folder):
    (folder / "secret").write_bytes(WEIGHTS)
    (folder / "model" / "w.bin").symlink_to(folder / "secret")


def linked_folder(folder):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "w.bin").write_bytes(WEIGHTS)
    (folder / "model" / "inside").symlink_to(folder / "elsewhere")


def pipe(folder):
    os.mkfifo(folder / "model" / "w.bin")


def short(folder):
    (folder / "model" / "w.bin").write_bytes(WEIGHTS[:10])


def nothing(folder):
    (folder / "secret").write_bytes(WEIGHTS)


HOSTILE = {
    "parent": (nothing, "../secret", "points outside its folder"),
    "windows parent": (nothing, "..\\secret", "points outside its folder"),
    "absolute": (nothing, "/etc/passwd", "points outside its folder"),
    "drive": (nothing, "C:\\w.bin", "points outside its folder"),
    "share": (nothing, "\\\\host\\w.bin", "points outside its folder"),
    "no name": (nothing, "", "points outside its folder"),
    "hard link": (hard_link, "w.bin", "no plain file with a single name"),
    "soft link": (soft_link, "w.bin", "missing or a link"),
    "linked folder": (linked_folder, "inside/w.bin", "leads through a link"),
    "pipe": (pipe, "w.bin", "no plain file"),
    "missing": (nothing, "w.bin", "missing or a link"),
    "too short": (short, "w.bin", "of a file of 10 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_external_weights_that_are_not_the_models_own_are_refused(name, tmp_path):
    prepare, location, words = HOSTILE[name]
    (tmp_path / "model").mkdir()
    prepare(tmp_path)
    with pytest.raises(ModelError, match=words):
        read_graph(external(tmp_path / "model", location, length=64))


@pytest.mark.parametrize("offset", [-4, 2**70, "x", 8])
def test_places_outside_the_file_are_refused(offset, tmp_path):
    (tmp_path / "w.bin").write_bytes(WEIGHTS)
    with pytest.raises(ModelError, match="it is damaged"):
        read_graph(external(tmp_path, "w.bin", offset=offset, length=64))


def test_files_that_are_no_graph_are_refused(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(ModelError, match="There is no ONNX file"):
        read_onnx(path)
    for content in (b"", b"\x00" * 20, b"not a graph"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"m\.onnx"):
            read_onnx(path)
    with pytest.raises(ArgumentError, match="takes no arguments, got width"):
        load_model(path, arguments={"width": 2})


def test_names_of_modules_are_those_of_their_weights():
    assert module_name("/a/Conv_3", "Conv", ["layer1.0.conv.weight"]) == "layer1.0.conv"
    assert module_name("/a/Conv_3", "Conv", ["onnx::Conv_12"]) == "a_Conv_3"
    assert module_name("7", "Relu", []) == "_7"
