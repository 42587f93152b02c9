"""Attention for OpenVINO: found in every form, written out, rounded, and the same in the file."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tersor.exporting.export import RUNTIMES, export, open_artefact
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.attention import write_out
from tersor.quantization.capture import capture
from tersor.quantization.fidelity import fidelity
from tersor.quantization.hardware import Processor, detect, scheme_for
from tersor.quantization.insert import quantizer_calls
from tersor.quantization.quantize import quantize, sites
from tersor.quantization.recipe import Recipe
from tersor.quantization.sensitivity import quantize_within, sensitivity

SIMD = Processor("x86", frozenset({"avx2", "avx512_vnni"}))
OPENVINO = scheme_for(SIMD, "static", "openvino")
WIDTH, HEADS = 32, 4


class Decoder(nn.Module):
    """Embedding, one attention over tokens of any number, and a projection; `attend` gives the mixed values."""

    def __init__(self, attend):
        super().__init__()
        self.embed, self.attend = nn.Embedding(30, WIDTH), attend
        self.q, self.kv, self.out = (nn.Linear(WIDTH, n * WIDTH) for n in (1, 2, 1))

    def forward(self, tokens):
        x = self.embed(tokens)
        q, k, v = (heads(part) for part in (self.q(x), *self.kv(x).chunk(2, -1)))
        return self.out(self.attend(q, k, v, tokens).transpose(1, 2).flatten(2))


def heads(x):
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def shown(tokens):
    """Hide the codes up to 3, but never the first token, so that no query is left without a key."""
    return ((tokens > 3) | (torch.arange(tokens.shape[1]) == 0))[:, None, None, :]


def fused(q, k, v, tokens):
    return F.scaled_dot_product_attention(q, k, v)


def causal(q, k, v, tokens):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def masked(q, k, v, tokens):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=shown(tokens))


def biased(q, k, v, tokens):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=0.1 * tokens[:, None, None, :].float())


def rescaled(q, k, v, tokens):
    return F.scaled_dot_product_attention(q, k, v, scale=0.7)


def by_hand(q, k, v, tokens):
    scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(~shown(tokens), float("-inf"))
    return torch.softmax(scores, -1) @ v


def biased_by_hand(q, k, v, tokens):
    scores = q * 0.3 @ k.transpose(-2, -1) + torch.where(shown(tokens), 0.0, -1e4)
    return scores.softmax(-1) @ v


FORMS = (fused, causal, masked, biased, rescaled, by_hand, biased_by_hand)


class Ready(nn.Module):
    """torch's own attention, called in the ways that run different code."""

    def __init__(self, *, weights, mask):
        super().__init__()
        self.attend, self.weights, self.mask = (
            nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
            weights,
            mask,
        )

    def forward(self, x):
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if self.mask else None
        return self.attend(x, x, x, need_weights=self.weights, attn_mask=mask)[0]


def decoder(form):
    torch.manual_seed(0)
    return Decoder(form).eval()


def codes(samples, length):
    return torch.randint(30, (samples, length), generator=torch.Generator().manual_seed(length))


def made(model, x, scheme=OPENVINO, **how):
    return quantize(model, (x[:2],), [(x,)], scheme=scheme, **how)


def rounded_products(model):
    """Names of the products of which both sides are rounded, and nothing else reads the rounded values."""
    calls = [node for node, _ in quantizer_calls(model.graph_module)]
    readers = [node.users for node in calls if node.target.endswith(("_left", "_right"))]
    found = [reader.name for (reader,) in readers]
    return [name for name in dict.fromkeys(found) if found.count(name) == 2]


@pytest.mark.parametrize("form", FORMS)
def test_the_product_of_queries_and_keys_is_rounded_and_that_of_values_is_not(form):
    products = rounded_products(made(decoder(form), codes(8, 7)))
    assert products == ["matmul"]


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_it_is_found_in_the_attention_of_torch(tokens, weights, mask, db):
    model = Ready(weights=weights, mask=mask).eval()
    small = made(model, tokens)
    assert len(rounded_products(small)) == 1
    with small.rounding(lambda _: False), torch.no_grad():
        assert db(model(tokens), small(tokens)) >= 110


@pytest.mark.parametrize("form", FORMS)
def test_written_out_attention_computes_the_same_at_every_length(form, db):
    model = decoder(form)
    graph = capture(model, (codes(4, 7),))
    write_out(graph)
    assert not any("attention" in str(node.target) for node in graph.graph.nodes)
    for samples, length in ((4, 7), (3, 1), (1, 12)):
        with torch.no_grad():
            assert db(model(codes(samples, length)), graph(codes(samples, length))) >= 110


def test_a_query_that_sees_no_key_gets_the_mean_of_the_values():
    def nothing(q, k, v, tokens):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=tokens[:, None, None, :] < 0)

    def mean(q, k, v, tokens):
        return v.mean(2, keepdim=True).expand_as(q)

    graph, expected = capture(decoder(nothing), (codes(4, 7),)), decoder(mean)
    write_out(graph)
    with torch.no_grad():
        assert torch.allclose(graph(codes(4, 7)), expected(codes(4, 7)), atol=1e-6)


def test_grouped_queries_stay_one_operation_in_floating_point():
    def grouped(q, k, v, tokens):
        return F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True)

    small = made(decoder(grouped), codes(8, 7))
    assert rounded_products(small) == []
    assert any("scaled_dot" in node.name for node in small.graph_module.graph.nodes)


def test_a_product_with_a_parameter_or_without_a_softmax_is_not_rounded():
    def pooled(q, k, v, tokens):
        return torch.sigmoid(q @ k.transpose(-2, -1)) @ v

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.weight = nn.Linear(8, 8), nn.Parameter(torch.randn(5, 1, 8))

        def forward(self, x):
            return torch.softmax(self.layer(x) @ self.weight.transpose(0, 1).transpose(1, 2)[0], -1)

    assert rounded_products(made(decoder(pooled), codes(8, 7))) == []
    assert rounded_products(made(Tied(), torch.randn(8, 8))) == []


@pytest.mark.parametrize(
    "scheme",
    [
        scheme_for(SIMD, "static"),
        scheme_for(SIMD, "static", "executorch"),
        scheme_for(SIMD, "int8", "openvino"),
        scheme_for(Processor("x86", frozenset({"avx2"})), "static", "openvino"),
        scheme_for(Processor("arm", frozenset({"dot"})), "static", "openvino"),
        replace(OPENVINO, scores=None),
    ],
    ids=["onnxruntime", "executorch", "weights", "16-bit sums", "arm", "asked"],
)
def test_no_other_scheme_changes_attention(scheme):
    small = made(decoder(causal), codes(8, 7), scheme)
    assert rounded_products(small) == []
    assert any("scaled_dot" in node.name for node in small.graph_module.graph.nodes)


def test_values_that_something_else_reads_are_rounded_for_the_product_alone(db):
    def shared(q, k, v, tokens):
        k = k.contiguous()
        return torch.softmax(q @ k.transpose(-2, -1), -1) @ (v + k)

    model, x = decoder(shared), codes(8, 7)
    small = made(model, x)
    assert rounded_products(small) == ["matmul"]
    inner = {node.name: node for node in small.graph_module.graph.nodes}
    (added,) = (node for node in inner.values() if node.name.startswith("add"))
    assert not any(node.op == "call_module" for node in added.all_input_nodes)


def test_both_sides_have_signed_codes_around_zero():
    modules = dict(made(decoder(causal), codes(8, 7)).graph_module.named_modules())
    for side in ("left", "right"):
        quantizer = modules[f"quantizers.matmul_{side}"]
        assert (quantizer.spec.qmin, quantizer.spec.qmax, quantizer.zero.item()) == (-128, 127, 0.0)
        assert 0 < quantizer.step.item() < 1


@pytest.mark.parametrize(
    "runtime", [name for name in ("onnxruntime", "openvino") if not RUNTIMES[name].missing()]
)
@pytest.mark.parametrize("form", FORMS)
def test_the_file_computes_what_its_simulation_does_at_every_length(form, runtime, tmp_path):
    x = codes(32, 7)
    small = made(decoder(form), x)
    run = open_artefact(export(small, (x[:2],), tmp_path / "m.onnx", runtime))
    for batch in (x, codes(32, 11)):
        assert fidelity(small, run, [(batch,)]) >= 50


def test_openvino_multiplies_queries_and_keys_in_integers(tmp_path):
    openvino = pytest.importorskip("openvino")
    if not detect().sums_exactly:
        pytest.skip("the kernel in integers needs a processor that sums in 32 bits")
    x = codes(32, 16)
    found = {}
    for name, scheme in (("integers", OPENVINO), ("floats", replace(OPENVINO, scores=None))):
        artefact = export(made(decoder(causal), x, scheme), (x[:2],), tmp_path / f"{name}.onnx", "openvino")
        compiled = openvino.Core().compile_model(
            str(artefact.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
        found[name] = {
            str(n["primitiveType"].astype(str)) for n in nodes if n["layerType"].astype(str) == "Subgraph"
        }
    assert any("i8" in kernel for kernel in found["integers"]), found
    assert not any("i8" in kernel for kernel in found["floats"]), found


def test_a_file_for_openvino_rounds_before_axes_are_swapped(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    x = codes(32, 7)
    artefact = export(made(decoder(causal), x), (x[:2],), tmp_path / "m.onnx", "openvino")
    graph = onnx.load(artefact.path).graph
    makers = {output: node for node in graph.node for output in node.output}
    scores = next(n for n in graph.node if n.op_type == "MatMul" and n.input[1] in makers
                  and makers[n.input[1]].op_type == "Transpose")  # fmt: skip
    for side in scores.input:
        assert makers[side].op_type == "Transpose"
        assert makers[makers[side].input[0]].op_type == "DequantizeLinear"


def test_a_plan_that_leaves_the_keys_in_floating_point_leaves_the_product_there_too():
    model, x = decoder(causal), codes(8, 7)
    names = sites(model, (x[:2],))
    assert set(names) == {"q", "kv", "out"}
    for left, count in (("kv", 0), ("q", 0), ("out", 1)):
        plan = Plan(tuple(Quantize(name) for name in names if name != left))
        assert len(rounded_products(made(model, x, plan=plan))) == count


def test_the_cost_of_a_layer_holds_the_rounding_of_what_it_gives_to_the_product():
    model, x = decoder(causal), codes(8, 7)
    with_scores, without = (
        {cost.site: cost.noise for cost in sensitivity(made(model, x, scheme), [(x,)])}
        for scheme in (OPENVINO, replace(OPENVINO, scores=None))
    )
    assert with_scores["out"] == pytest.approx(without["out"], rel=1e-4)
    assert with_scores["q"] > 1.01 * without["q"]
    assert with_scores["kv"] > 1.01 * without["kv"]


def test_precision_can_be_mixed_for_openvino():
    model, x = decoder(causal), codes(16, 7)
    whole = sensitivity(made(model, x), [(x,)])
    least = whole[0].sqnr_db + 1.0
    small = quantize_within(model, (x[:2],), [(x,)], least_db=least, scheme=OPENVINO)
    assert whole[0].site in small.floats


def test_steps_of_attention_train_and_recipes_apply():
    model, x = decoder(causal), codes(16, 7)
    small = made(model, x, recipe=Recipe("minmax", ("balance",), ("gptq", "bias"))).train()
    small(x).square().mean().backward()
    modules = dict(small.graph_module.named_modules())
    for side in ("left", "right"):
        assert modules[f"quantizers.matmul_{side}"].step.grad.abs() > 0
    assert small.graph_module.get_parameter("q.weight").grad.abs().sum() > 0
