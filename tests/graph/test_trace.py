"""Tracing: groups and their kinds, costs, sizes, and what is refused."""

import copy
import math

import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError, ModelError, PlanError
from tersor.graph.integers import Attribute, Observed, Traced, evaluate, tag_attributes
from tersor.graph.prove import prove
from tersor.graph.solve import close, solve
from tersor.graph.trace import trace
from tests.graph.networks import Bert, Hidden, Llama, Recurrent, ResNet, ViT, image, words


def kinds(model, inputs):
    found = {}
    for group in trace(model, inputs).groups:
        if group.prunable:
            found.setdefault(group.kind, []).append(group.size)
    return found


def test_kinds_of_groups():
    assert kinds(Llama(), words()) == {
        "residual": [32], "hidden": [48], "head features": [4, 8], "kv groups": [2], "heads per kv group": [2],
    }  # fmt: skip
    assert kinds(ResNet(), image()) == {"residual": [8, 16], "channels": [8, 16, 16]}
    assert kinds(Recurrent(), (torch.randn(2, 4, 5),)) == {"recurrent hidden": [6, 8]}
    assert set(kinds(ViT(), image())) == {"residual", "hidden", "heads", "head features"}


def test_multiply_adds_and_parameters_are_counted_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 25, 7))
    graph = trace(model, (torch.randn(2, 3, 5, 5),))
    assert graph.macs() == 25 * 4 * 27 + 700
    assert graph.macs({"0": (0, 2, 3)}) == 25 * 3 * 27 + 525
    group = graph.group("0")
    assert group.macs == 25 * 27 + 25 * 7
    assert group.parameters == 28 + 25 * 7
    assert graph.parameters() == sum(p.numel() for p in model.parameters())


def test_attention_counts_both_of_its_products():
    class Fused(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            return nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)

    assert trace(Fused(), (torch.randn(1, 5, 8),)).macs() == 5 * 8 * 24 + 2 * 2 * 5 * 5 * 4


@pytest.mark.parametrize("factory", [Bert, Llama])
def test_the_model_is_not_changed_by_a_trace(factory):
    model = factory().train()
    model.note = (3, 4)
    before = copy.deepcopy({k: v for k, v in vars(model).items() if not k.startswith("_")})
    trace(model, words())
    after = {k: v for k, v in vars(model).items() if not k.startswith("_")}
    assert after == before
    assert all(type(v) is type(before[k]) for k, v in after.items())
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_forward_that_writes_into_its_parameters_is_run_on_a_copy():
    class Rescaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            with torch.no_grad():
                self.a.weight.data.div_(2)
            return self.b(self.a(x))

    model = Rescaled()
    before = model.a.weight.clone()
    assert trace(model, (torch.randn(2, 4),)).group("a").prunable
    assert torch.equal(model.a.weight, before)


def test_a_model_on_the_meta_device_needs_no_memory():
    with torch.device("meta"):
        model = ViT()
    graph = trace(model, (torch.empty(1, 3, 16, 16, device="meta"),))
    real = trace(ViT(), (torch.randn(1, 3, 16, 16),))
    assert [(g.name, g.kind, g.size, g.macs) for g in graph.groups] == [
        (g.name, g.kind, g.size, g.macs) for g in real.groups
    ]


def test_inputs_that_the_model_does_not_take_are_an_error_of_the_model():
    with pytest.raises(ModelError, match="could not run on the example inputs"):
        trace(ViT(), (torch.randn(1, 4, 16, 16),))


def test_attributes_are_solved_by_where_they_are_used():
    graph = trace(Hidden(), (torch.randn(2, 6),))
    group = next(g for g in graph.groups if g.name == "a")
    assert group.prunable
    values = solve(graph, {"a": tuple(range(5))})
    assert {str(key): value for key, value in values.items()} == {"hidden": 5}


def test_closing_keeps_what_scores_best():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.width = 6
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(12, 2)

        def forward(self, x):
            a, b = (layer(x).view(-1, self.width) for layer in (self.a, self.b))
            return self.c(torch.cat([a, b.relu()], -1))

    graph = trace(Twice(), (torch.randn(3, 4),))
    kept = {"a": (0, 1), "b": (0, 1, 2, 3)}
    with pytest.raises(PlanError, match="width"):
        solve(graph, kept)
    closed = close(graph, kept, {"a": [0, 0, 1, 5, 2, 4]})
    assert closed == {"a": (0, 1, 3, 5), "b": (0, 1, 2, 3)}
    assert close(graph, closed) == closed


def test_blocks_are_the_modules_that_add_to_their_input():
    assert list(trace(ViT(), image()).blocks) == ["blocks.0", "blocks.1"]
    assert list(trace(ResNet(), image()).blocks) == ["blocks.0", "blocks.2"]


class Spare(nn.Module):
    """Has a layer that the forward pass does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.spare = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(3, 3)

    def forward(self, x):
        return self.b(self.a(x))


def test_unused_parameters_are_named():
    assert trace(Spare(), (torch.randn(1, 4),)).unused == ("spare.weight", "spare.bias")


def test_traced_integers_are_integers_with_an_expression():
    seen = Observed()
    width = Traced.make(12, Attribute("m", ("width",)), seen)
    half = (width // 2 + 1) * 3 - width % 5
    assert half == 19
    assert isinstance(half, int)
    assert evaluate(half.expression, lambda _: 20) == 33
    assert not seen.values
    assert math.sqrt(width) == math.sqrt(12)
    assert width**-0.5 == 12**-0.5
    assert 1 / width == 1 / 12
    assert seen.values == [Attribute("m", ("width",))] * 3
    assert copy.deepcopy(width) == 12
    assert type(copy.deepcopy(width)) is int


def test_integers_in_tuples_and_dicts_are_tagged_and_flags_are_not():
    model = Hidden()
    model.flag = True
    tag_attributes(model, Observed())
    assert str(model.parts[1].expression) == "parts.1"
    assert str(model.settings["inner"].expression) == "settings.inner"
    assert type(model.flag) is bool


def test_one_tensor_will_do_for_inputs():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert trace(model, torch.zeros(3, 4)).group("0").size == 8
    assert prove(trace(model, torch.zeros(3, 4)).group("0"), model, torch.ones(3, 4)) < 1e-12


def test_a_hook_that_traces_its_own_model_is_told_so():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    model.register_forward_hook(lambda module, args, out: trace(module, args) and None)
    with pytest.raises(ModelError, match="forward hook"):
        model(torch.zeros(1, 4))


def test_a_branch_on_an_attribute_is_never_turned():
    class Shortcut(nn.Module):
        """A projection where the widths differ; a cut to equal widths must not take it away."""

        def __init__(self):
            super().__init__()
            self.width, self.out, self.same = 4, 8, 8
            self.first, self.second = nn.Linear(6, 4), nn.Linear(4, 8)
            self.project, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            x = self.first(x)
            short = self.project(x) if self.width != self.out else x
            x = (self.second(x) + short).reshape(-1, self.out)
            return self.last(x if self.same == self.out else -x)

    model, inputs = Shortcut(), (torch.randn(5, 6),)
    graph = trace(model, inputs)
    name = next(group.name for group in graph.groups if group.size == 8)
    kept = close(graph, {name: (0, 1, 2, 3)})
    assert len(kept[name]) == 5
    assert {str(key): value for key, value in solve(graph, kept).items()} == {"out": 5, "same": 5}


def test_a_number_that_is_asked_to_be_above_one_stays_above_one():
    class Split(nn.Module):
        """Two halves that attend to each other, if there are two."""

        def __init__(self):
            super().__init__()
            self.radix = 2
            self.first, self.last = nn.Linear(6, 8), nn.Linear(4, 3)

        def forward(self, x):
            x = self.first(x).view(len(x), self.radix, -1)
            return self.last((x.softmax(1) * x).sum(1) if self.radix > 1 else x.sigmoid()[:, 0])

    graph = trace(Split(), torch.randn(5, 6))
    kept = {group.name: (0,) for group in graph.groups if group.prunable}
    closed = close(graph, kept)
    assert all(len(closed[name]) == 1 for name in closed if graph.group(name).size == 4)
    assert solve(graph, closed) == {}


@pytest.mark.parametrize(
    ("ask", "kind", "message"),
    [
        (lambda m: trace(m, torch.zeros(1, 5)), ModelError, r"\(float32\[1, 5\]\).*cannot be multiplied"),
        (lambda m: trace(m, {"y": torch.zeros(1, 4)}), ModelError, r"y: float32\[1, 4\]"),
        (lambda m: trace(m, ()), ModelError, r"\(none\)"),
        (lambda m: trace(lambda x: x, torch.zeros(1, 4)), ArgumentError, "got function"),
        (lambda m: trace(m, torch.zeros(1, 4)).group("layer9"), PlanError, "It has '0', '2'"),
        (lambda m: trace(m, torch.zeros(1, 4)).group("00"), PlanError, "Did you mean '0'"),
    ],
)
def test_bad_requests_are_answered_with_what_was_given_and_what_would_do(ask, kind, message):
    with pytest.raises(kind, match=message):
        ask(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))


def test_a_fused_recurrent_layer_has_the_multiply_adds_of_its_gates_before_and_after_a_cut():
    layer = nn.LSTM(3, 4, batch_first=True)
    graph = trace(nn.Sequential(layer, First(), nn.Linear(4, 2)), torch.zeros(2, 5, 3))
    assert graph.macs() == 5 * 16 * (3 + 4) + 5 * 8
    (group,) = (group for group in graph.groups if group.kind == "recurrent hidden")
    assert graph.macs({group.name: (0, 1)}) == 5 * 8 * (3 + 2) + 5 * 4


class First(nn.Module):
    def forward(self, pair):
        return pair[0]
