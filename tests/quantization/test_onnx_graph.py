"""ONNX graphs in integers: each scheme computes on integers, close to the original, and nothing is rounded twice."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from tersor.errors import ArgumentError
from tersor.exporting.export import export
from tersor.loading.model import load_model
from tersor.loading.onnx.convert import as_graph
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.hardware import weight_only
from tersor.quantization.onnx_graph import (
    RANGES,
    Rounding,
    graph_schemes,
    halve_graph,
    optimize_graph,
    quantize_best,
    quantize_graph,
    site_of,
)
from tersor.quantization.quantize import quantize

#: Scheme -> largest relative error of the outputs, and largest part of the original's bytes.
ALLOWED = {"static": (0.05, 0.4), "dynamic": (0.05, 0.4), "int8": (0.03, 0.4), "int4": (0.25, 0.3)}


@pytest.fixture(scope="module")
def samples():
    return torch.randn(96, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def linear(tmp_path_factory, with_a_branch):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 10))
    path = tmp_path_factory.mktemp("graph") / "linear.onnx"
    export(network, (torch.randn(2, 64),), path)
    return load_model(str(with_a_branch(path)))


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory, with_a_branch):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    )
    path = tmp_path_factory.mktemp("graph") / "conv.onnx"
    export(network, (torch.randn(2, 1, 8, 8),), path)
    return load_model(str(with_a_branch(path)))


def distance(one, other, x):
    return float((one(x) - other(x)).norm() / other(x).norm())


def test_schemes_are_those_of_the_layers(linear, convolutional):
    assert graph_schemes(linear) == ("dynamic", "static", "int8", "int4")
    assert graph_schemes(linear, "openvino") == ("static", "int8", "int4")
    assert graph_schemes(convolutional) == ("static",)


@pytest.mark.parametrize("scheme", ALLOWED)
def test_every_scheme_computes_on_integers_close_to_the_original_and_small(linear, samples, scheme):
    error, size = ALLOWED[scheme]
    made = quantize_graph(linear, [(samples,)], Rounding(scheme))
    assert [site_of(name) for name in made.integers] == list(linear.layers)
    assert 0 < distance(made, linear, samples) < error
    assert made.content.numel() < size * linear.content.numel()
    assert made.quantized
    assert graph_schemes(made) == ()


@pytest.mark.parametrize("scheme", ALLOWED)
def test_what_is_left_alone_stays_in_floating_point(linear, samples, scheme):
    first, *rest = linear.layers
    made = quantize_graph(linear, [(samples,)], Rounding(scheme, leave=(first,)))
    assert [site_of(name) for name in made.integers] == rest


def test_convolutions_are_rounded_for_each_channel(convolutional):
    x = torch.randn(32, 1, 8, 8)
    made = quantize_graph(convolutional, [(x,)], Rounding("static"))
    assert len(made.integers) == 3
    assert distance(made, convolutional, x) < 0.05
    steps = {t.name: numpy_helper.to_array(t) for t in made.proto().graph.initializer if "scale" in t.name}
    assert any(step.shape == (16,) for step in steps.values())


def test_weights_keep_seven_bits_where_products_saturate(linear, samples, monkeypatch):
    from tersor.quantization import onnx_graph
    from tersor.quantization.hardware import Processor

    for features, reach in (({"avx2"}, 64), ({"avx2", "avx512_vnni"}, 127)):
        monkeypatch.setattr(onnx_graph, "detect", lambda f=features: Processor("x86", frozenset(f)))
        made = quantize_graph(linear, [(samples,)], Rounding("static"))
        codes = [
            numpy_helper.to_array(t)
            for t in made.proto().graph.initializer
            if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2
        ]
        assert len(codes) == 3
        assert max(int(np.abs(c.astype(int)).max()) for c in codes) == reach


def test_percentiles_pay_where_an_outlier_stretches_the_range(linear, samples):
    wild = samples.clone()
    wild[0, 0] = 300.0
    batches, rest = [(samples,), (wild,)], tuple(linear.layers)[1:]
    made = {r: quantize_graph(linear, batches, Rounding("static", r, rest)) for r in RANGES}
    errors = {ranges: distance(model, linear, samples) for ranges, model in made.items()}
    assert errors["percentile"] < errors["minmax"] / 2
    best = quantize_best(linear, [(wild,), (samples,)], Rounding("static", leave=rest))
    assert distance(best, linear, samples) == pytest.approx(errors["percentile"], rel=0.1)


def test_a_fused_product_is_rounded_as_the_product_that_it_is(tmp_path, samples):
    factors = numpy_helper.from_array(
        np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32), "w"
    )
    node = helper.make_node(
        "FusedMatMul", ["x", "w"], ["y"], "m", domain="com.microsoft", alpha=0.25, transB=1
    )
    ends = [helper.make_tensor_value_info(n, 1, ["n", size]) for n, size in (("x", 64), ("y", 10))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [factors])
    sets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = as_graph(helper.make_model(graph, opset_imports=sets, ir_version=10), "")
    for scheme, (error, _) in ALLOWED.items():
        made = quantize_graph(model, [(samples,)], Rounding(scheme))
        assert [site_of(name) for name in made.integers] == ["m"]
        assert distance(made, model, samples) < error


def test_nothing_is_rounded_twice_and_a_graph_without_layers_is_said(linear, samples):
    made = quantize_graph(linear, [(samples,)], Rounding("static"))
    for scheme in ALLOWED:
        with pytest.raises(ArgumentError, match="quantized already"):
            quantize_graph(made, [(samples,)], Rounding(scheme))
    with pytest.raises(ArgumentError, match="no layer"):
        quantize_graph(linear, [(samples,)], Rounding("int8", leave=tuple(linear.layers)))


def test_fusing_changes_no_answer_and_half_precision_little(linear, samples):
    assert distance(optimize_graph(linear), linear, samples) < 1e-6
    half = halve_graph(linear)
    assert half(samples).dtype == torch.float32
    onnx.checker.check_model(half.proto())
    assert half.content.numel() < 0.6 * linear.content.numel()
    assert distance(half, linear, samples) < 0.01


def test_quantize_takes_a_graph_in_its_own_words(linear, samples):
    batches = [(samples[:48],), (samples[48:],)]
    assert [site_of(name) for name in quantize(linear, (samples[:2],), batches).integers] == list(
        linear.layers
    )
    last = list(linear.layers)[-1]
    made = quantize(
        linear, (samples[:2],), batches, scheme="static", plan=Plan((Quantize(last),)), recipe="auto"
    )
    assert [site_of(name) for name in made.integers] == [last]
    with pytest.raises(ArgumentError, match="rounded by ONNX Runtime"):
        quantize(linear, (samples[:2],), batches, scheme=weight_only(4))
