"""ONNX files that do not convert to torch stay graphs: they run, bind, copy and refuse what needs layers."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tersor.analysis.facts import facts
from tersor.errors import DataError, ExportError, ModelError
from tersor.exporting.export import export, open_artefact
from tersor.factorization.spectrum import spectra
from tersor.graph.trace import trace
from tersor.loading.build import build_task
from tersor.loading.model import load_model
from tersor.loading.onnx.graph_model import GraphModel
from tersor.quantization.onnx_graph import halve_graph
from tersor.recovery.train import train

RNG = np.random.default_rng(0)


def weight(name, *shape):
    return numpy_helper.from_array((RNG.standard_normal(shape) / 4).astype(np.float32), name)


def saved(path, nodes, weights, shape=("n", 6), *, out=("n", 3), kind=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x.1", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        weights,
    )
    sets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=10), path)
    return path


def fused(path, **options):
    nodes = [
        helper.make_node("MatMul", ["x.1", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("FusedMatMul", ["r", "b"], ["y"], name="last", domain="com.microsoft", alpha=0.5),
    ]
    return saved(path, nodes, [weight("a", 6, 5), weight("b", 5, 3)], **options)


def answer(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0])


def test_a_graph_that_does_not_convert_names_the_operator_and_answers_as_its_file(tmp_path):
    path = fused(tmp_path / "net.onnx")
    model = load_model(str(path))
    assert isinstance(model, GraphModel)
    assert "FusedMatMul (1x, first 'last')" in model.why
    assert type(model).__name__ == "net"
    x = torch.randn(7, 6)
    assert torch.equal(model(x), answer(path, x))
    assert torch.equal(copy.deepcopy(model)(x_1=x), model(x))
    assert model.layers == {"MatMul_0": ("MatMul", (6, 5)), "last": ("FusedMatMul", (5, 3))}
    assert not model.quantized
    assert list(model.parameters()) == []


def test_control_flow_is_named(tmp_path, with_a_branch):
    nodes = [helper.make_node("MatMul", ["x.1", "a"], ["y"])]
    path = with_a_branch(saved(tmp_path / "m.onnx", nodes, [weight("a", 6, 3)]))
    model = load_model(str(path))
    assert "If (1x, first 'branch')" in model.why
    assert model(torch.zeros(2, 6)).shape == (2, 3)


def test_a_fixed_batch_is_opened_where_that_changes_nothing_and_refused_where_it_does(tmp_path):
    model = load_model(str(fused(tmp_path / "one.onnx", shape=(1, 6), out=(1, 3))))
    assert model(torch.zeros(5, 6)).shape == (5, 3)
    shape = numpy_helper.from_array(np.array([2, 3]), "shape")
    nodes = [
        helper.make_node("FusedMatMul", ["x.1", "a"], ["h"], domain="com.microsoft"),
        helper.make_node("Reshape", ["h", "shape"], ["y"]),
    ]
    path = saved(tmp_path / "two.onnx", nodes, [weight("a", 6, 3), shape], shape=(2, 6), out=(2, 3))
    with pytest.raises(ModelError, match=r"takes 2 samples at a time.*open batch axis"):
        load_model(str(path))


def test_costs_are_those_of_the_products(tmp_path):
    costs = facts(load_model(str(fused(tmp_path / "m.onnx"))), (torch.zeros(4, 6),))
    assert (costs.parameters, costs.macs) == (45, 45)
    nodes = [
        helper.make_node("Conv", ["x.1", "k"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2], group=2),
        helper.make_node("Einsum", ["c", "e"], ["h"], equation="nchw,co->nohw"),
        helper.make_node("Det", ["h"], ["y"]),
    ]
    weights = [weight("k", 8, 2, 3, 3), weight("e", 8, 5)]
    path = saved(tmp_path / "c.onnx", nodes, weights, shape=("n", 4, 8, 8), out=("n", 5))
    costs = facts(load_model(str(path)), (torch.zeros(2, 4, 8, 8),))
    assert costs.by_site()["Conv_0"] == 8 * 4 * 4 * 2 * 3 * 3
    assert costs.by_site()["Einsum_1"] == 8 * 4 * 4 * 5


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_it_is_exported_as_it_is(tmp_path, runtime):
    pytest.importorskip(runtime)
    model = load_model(str(fused(tmp_path / "m.onnx")))
    x = torch.randn(4, 6)
    made = export(model, (x,), tmp_path / "out.onnx", runtime)
    assert made.inputs == ("x_1",)
    np.testing.assert_allclose(open_artefact(made)([x.numpy()])[0], model(x), rtol=1e-4, atol=1e-5)
    half = export(halve_graph(model), (x,), tmp_path / "half.onnx", runtime)
    np.testing.assert_allclose(open_artefact(half)([x.numpy()])[0], model(x), rtol=1e-2, atol=1e-2)


def test_what_needs_layers_is_refused_with_the_reason_and_what_to_do(tmp_path):
    model, x = load_model(str(fused(tmp_path / "m.onnx"))), torch.randn(600, 6)
    said = r"needs layers of torch.*FusedMatMul.*tersor quantize"
    with pytest.raises(ModelError, match=said):
        trace(model, (x,))
    with pytest.raises(ModelError, match=said):
        spectra(model, (x,))
    with pytest.raises(ModelError, match=said):
        train(model, (x, (x[:, 0] > 0).long()), epochs=1)
    with pytest.raises(ExportError, match="only for onnxruntime and openvino"):
        export(model, (x[:2],), tmp_path / "m.pt2", "torch")


def test_data_is_cast_to_the_types_of_the_graph_and_other_shapes_are_refused(tmp_path):
    nodes = [
        helper.make_node("Cast", ["x.1"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("FusedMatMul", ["f", "a"], ["y"], domain="com.microsoft"),
    ]
    path = saved(tmp_path / "m.onnx", nodes, [weight("a", 6, 3)], kind=TensorProto.UINT8)
    model = load_model(str(path))
    x, y = torch.randint(0, 255, (900, 6)), torch.randint(0, 3, (900,))
    task, notes = build_task(model, (x, y))
    assert next(task.search.batches(4)).inputs[0].dtype == torch.uint8
    assert any("stays a graph" in line for line in notes.words())
    with pytest.raises(DataError, match=r"takes x_1\[\?, 6\], and the data gives \[8, 2, 3\]"):
        build_task(model, (x.reshape(900, 2, 3), y))
    with pytest.raises(DataError, match="does not fit"):
        build_task(model, (x, x, y))


def test_inputs_that_are_no_tensors_of_numbers_are_refused(tmp_path):
    nodes = [
        helper.make_node("StringNormalizer", ["x.1"], ["s"]),
        helper.make_node(
            "LabelEncoder", ["s"], ["y"], domain="ai.onnx.ml", keys_strings=["a"], values_floats=[1.0]
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x.1", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    sets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=10), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="no tensor of numbers"):
        load_model(str(tmp_path / "m.onnx"))


def test_weights_outside_of_the_folder_are_refused_before_it_can_become_a_graph(tmp_path):
    path = fused(tmp_path / "m.onnx")
    (tmp_path / "inner").mkdir()
    model = onnx.load(path)
    onnx.save(model, tmp_path / "w.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    told = onnx.load(tmp_path / "w.onnx", load_external_data=False)
    for tensor in told.graph.initializer:
        tensor.external_data[0].value = "../w.bin"
    (tmp_path / "inner" / "m.onnx").write_bytes(told.SerializeToString())
    with pytest.raises(ModelError, match="points outside its folder"):
        load_model(str(tmp_path / "inner" / "m.onnx"))
