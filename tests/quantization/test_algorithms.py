import copy

import numpy as np
import pytest
import torch
from torch import nn

from tersor.loading.inputs import call
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.algorithms.registry import REFINEMENTS, RESCALINGS
from tersor.quantization.algorithms.second_order import SecondOrder
from tersor.quantization.capture import capture
from tersor.quantization.grid import QSpec
from tersor.quantization.layers import layers
from tersor.quantization.march import march
from tersor.quantization.quantize import quantize, sites
from tersor.quantization.recipe import Recipe

WEIGHT = QSpec(-7, 7, axis=0, symmetric=True)


@pytest.fixture(scope="module")
def graphs():
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    norms = nn.Sequential(
        nn.LayerNorm(16), nn.Linear(16, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 4)
    ).eval()
    images, rows = torch.randn(8, 3, 8, 8), torch.randn(32, 5, 16) * torch.logspace(-1, 1, 16)
    return {"chain": (capture(chain, (images,)), (images,)), "norms": (capture(norms, (rows,)), (rows,))}


@pytest.mark.parametrize(
    ("name", "kind", "places"), [("equalize", "chain", 1), ("smooth", "norms", 2), ("awq", "norms", 2)]
)
def test_a_rescaling_changes_parameters_and_not_the_function(name, kind, places, graphs):
    graph, inputs = graphs[kind]
    twin = copy.deepcopy(graph)
    assert RESCALINGS[name]()(twin, [inputs], WEIGHT) == places
    before = graph.state_dict()
    assert any(not torch.equal(before[key], value) for key, value in twin.state_dict().items())
    assert torch.allclose(call(twin, inputs), call(graph, inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(RESCALINGS))
@pytest.mark.parametrize("kind", ["chain", "norms"])
def test_every_rescaling_leaves_every_function_as_it_was(name, kind, graphs):
    graph, inputs = graphs[kind]
    twin = copy.deepcopy(graph)
    RESCALINGS[name]()(twin, [inputs], WEIGHT)
    assert torch.allclose(call(twin, inputs), call(graph, inputs), rtol=1e-4, atol=1e-4)


def test_smoothing_takes_the_outliers_out_of_activations(attention, tokens, db):
    with torch.no_grad():
        attention.norm1.weight[3], attention.norm2.weight[5] = 60.0, 60.0
    original = attention(tokens=tokens)["logits"].detach()
    error = {}
    for before in ((), ("smooth",)):
        small = quantize(
            attention,
            {"tokens": tokens[:2]},
            [{"tokens": tokens}],
            scheme="static",
            recipe=Recipe("minmax", before),
        )
        error[before] = db(original, small(tokens=tokens)["logits"].detach())
    assert error[("smooth",)] > error[()] + 3


class NormLast(nn.Module):
    """The stream itself is normed, as in BERT: layers are not the norm's only readers."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.LayerNorm(32), nn.LayerNorm(32)
        self.up, self.down, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 8)

    def forward(self, x):
        x = self.first(x)
        return self.head(self.last(x + self.down(nn.functional.gelu(self.up(x)))))


@pytest.fixture
def norm_last():
    torch.manual_seed(0)
    model = NormLast().eval()
    with torch.no_grad():
        model.first.weight[3], model.up.weight[5] = 40.0, model.up.weight[5] * 30
        model.last.weight[3] = 0.1
    return model


def test_balance_moves_outliers_where_no_norm_can_take_the_scale(norm_last, tokens):
    graph = capture(norm_last, (tokens,))
    twin = copy.deepcopy(graph)
    assert RESCALINGS["smooth"]()(copy.deepcopy(graph), [(tokens,)], WEIGHT) == 1
    assert (
        RESCALINGS["balance"]()(twin, [(tokens,), (tokens[:, :4],)], QSpec(-127, 127, axis=0, symmetric=True))
        >= 2
    )
    assert torch.allclose(call(twin, (tokens,)), call(graph, (tokens,)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scheme", ["dynamic", "static"])
def test_balance_brings_a_model_that_norms_its_stream_closer_to_the_original(
    norm_last, tokens, db, scheme, as_file
):
    original = norm_last(tokens).detach()
    plain, balanced = (
        quantize(norm_last, (tokens[:2],), [(tokens,)], scheme=scheme, recipe=Recipe("minmax", before))
        for before in ((), ("balance",))
    )
    file = as_file(balanced, (tokens[:2],)).run(tokens)
    assert db(original, balanced(tokens).detach()) > db(original, plain(tokens).detach()) + 3
    assert db(balanced(tokens).detach(), file) >= 40


def test_where_balance_puts_products_does_not_depend_on_the_samples(norm_last, tokens):
    kept = []
    for batch, worth in ((tokens, 1.0), (tokens[:1] * 0.01, 1e-9)):
        graph = capture(norm_last, (tokens,))
        kept.append((RESCALINGS["balance"](worth=worth)(graph, [(batch,)], WEIGHT), set(graph.state_dict())))
    assert kept[0][0] >= 2
    assert kept[1] == (0, kept[0][1])


def test_equalization_repairs_unequal_channels(db):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    factors = torch.logspace(-2, 2, 16)
    with torch.no_grad():
        model[0].weight *= factors[:, None, None, None]
        model[0].bias *= factors
        model[2].weight /= factors[None, :, None, None]
    x = torch.randn(32, 3, 12, 12)
    original = model(x).detach()
    plain = quantize(model, (x[:2],), [(x,)], recipe=Recipe("minmax"))
    equal = quantize(model, (x[:2],), [(x,)], recipe=Recipe("minmax", ("equalize",)))
    assert db(original, equal(x).detach()) > db(original, plain(x).detach()) + 10


def low_bits(model, inputs):
    return Plan(tuple(Quantize(site, weight_bits=3) for site in sites(model, inputs)))


@pytest.mark.parametrize("name", sorted(REFINEMENTS))
def test_every_refinement_brings_each_layer_closer_to_the_reference(name, perceptron, rows):
    plan = low_bits(perceptron, (rows[:2],))
    plain = quantize(perceptron, (rows[:2],), [(rows,)], scheme="static", plan=plan)
    reference, refine = capture(perceptron, (rows[:2],)), REFINEMENTS[name]()
    checked = 0

    def visit(layer, x, y):
        nonlocal checked
        root = plain.graph_module
        error = lambda: float(
            (
                layer.run(
                    x, layer.quantizer(root.get_parameter(layer.weight)), root.get_parameter(layer.bias)
                )
                - y
            )
            .square()
            .sum()
        )
        before = error()
        refine(layer, root, x, y)
        assert error() <= before * 1.0001
        checked += error() < 0.97 * before

    march(plain.graph_module, reference, [(rows,)], visit)
    assert checked >= 2


@pytest.mark.parametrize("name", ["adaround", "gptq"])
def test_refined_weights_lie_on_their_grid(name, perceptron, rows):
    small = quantize(perceptron, (rows[:2],), [(rows,)], scheme="static", recipe=Recipe("mse", (), (name,)))
    for layer in layers(small.graph_module):
        weight = small.graph_module.get_parameter(layer.weight).detach()
        assert torch.equal(layer.quantizer(weight), weight)


@pytest.mark.parametrize("name", sorted(REFINEMENTS))
def test_refinements_repeat_exactly(name, perceptron, rows):
    make = lambda: quantize(
        perceptron, (rows[:2],), [(rows,)], scheme="static", recipe=Recipe("mse", (), (name,))
    )
    assert torch.equal(make()(rows), make()(rows))


def test_second_order_rounding_equals_the_plain_recursion():
    """Against optimal brain quantization written naively: one weight at a time, the inverse downdated each time."""
    generator = np.random.default_rng(0)
    weight, x = generator.normal(size=(4, 12)), generator.normal(size=(12, 200))
    gram, step = x @ x.T, 0.4
    hessian = gram + np.eye(12) * 0.01 * np.mean(np.diag(gram))
    naive, inverse = weight.copy(), np.linalg.inv(hessian)
    for j in range(12):
        code = np.clip(np.round(naive[:, j] / step), -7, 7) * step
        error = (naive[:, j] - code) / inverse[j, j]
        naive -= np.outer(error, inverse[j]) * (np.arange(12) > j)
        naive[:, j] = code
        inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    steps = torch.full((4, 12), step, dtype=torch.float64)
    ours = SecondOrder(block=5).solve(
        torch.tensor(weight), steps, torch.zeros_like(steps), QSpec(-7, 7, symmetric=True), torch.tensor(gram)
    )
    assert np.allclose(ours.numpy(), naive)


def test_auto_keeps_the_best_recipe_it_measured(perceptron, rows):
    small = quantize(perceptron, (rows[:2],), [(rows,)], scheme="static", recipe="auto", budget_s=60)
    assert len(small.attempts) >= 4
    best = max(attempt.sqnr_db for attempt in small.attempts)
    chosen = next(a.sqnr_db for a in small.attempts if a.recipe == small.recipe)
    assert best - chosen <= 0.25


def test_auto_finishes_its_first_recipe_whatever_the_budget(perceptron, rows):
    small = quantize(perceptron, (rows[:2],), [(rows,)], scheme="static", recipe="auto", budget_s=1e-6)
    assert len(small.attempts) == 1
