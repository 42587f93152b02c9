import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError, DataError, ModelError, PlanError
from tersor.exporting.integers import lower
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.quantize import quantize, sites
from tersor.quantization.recipe import Recipe


def test_a_convolutional_network_becomes_integer_kernels_from_end_to_end(conv_net, images, as_file, db):
    small = quantize(conv_net, (images[:2],), [(images,)])
    file = as_file(small, (images[:2],))
    with torch.no_grad():
        simulated, original = small(images), conv_net(images)
    real = file.run(images)
    operators = file.operators()
    assert operators.count("QLinearConv") == 5
    assert not {"Conv", "FusedConv", "Gemm", "Add", "ReduceMean", "Relu", "Clip"} & set(operators)
    assert {"QLinearAdd", "QLinearGlobalAveragePool", "QGemm"} <= set(operators)
    assert db(simulated, real) >= 40
    assert db(simulated, file.run(images, kernels=False)) >= 40
    assert db(original, real) >= 30


def test_a_perceptron_becomes_integer_kernels_from_end_to_end(perceptron, rows, as_file, db):
    small = quantize(perceptron, (rows[:2],), [(rows,)], scheme="static")
    file = as_file(small, (rows[:2],))
    with torch.no_grad():
        simulated = small(rows)
    assert db(simulated, file.run(rows)) >= 40
    assert file.operators().count("QGemm") == 3
    assert db(perceptron(rows).detach(), simulated) >= 30


def test_the_batch_axis_of_the_file_is_free(perceptron, rows, as_file, db):
    small = quantize(perceptron, (rows[:1],), [(rows,)])
    file = as_file(small, (rows[:2],))
    for batch in (1, 5):
        assert db(small(rows[:batch]).detach(), file.run(rows[:batch])) >= 40


def test_weights_are_stored_as_bytes(as_file):
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256))
    x = torch.randn(32, 256)
    file = as_file(quantize(wide, (x[:2],), [(x,)], scheme="static"), (x[:2],))
    stored = file.initializers()
    matrices = [array for array in stored.values() if array.ndim == 2]
    assert [array.dtype for array in matrices] == [np.int8, np.int8]
    floats = sum(p.numel() * 4 for p in wide.parameters())
    assert floats / sum(array.nbytes for array in stored.values()) > 3.8
    assert floats / Path(file.path).stat().st_size > 3.6


def test_lowering_changes_no_bit(conv_net, images):
    small = quantize(conv_net, (images[:2],), [(images,)])
    assert torch.equal(lower(small)(images), small(images))


def test_the_given_model_is_left_as_it_was(conv_net, images):
    conv_net.train()
    before = copy.deepcopy(conv_net.state_dict())
    quantize(conv_net, (images[:2],), [(images,)])
    assert conv_net.training
    assert all(torch.equal(before[name], value) for name, value in conv_net.state_dict().items())


def test_sites_are_the_layers_in_the_order_of_execution(conv_net, images):
    names = sites(conv_net, (images[:2],))
    assert names == ("stem.0", "block.first", "block.second", "block.short", "depthwise.0", "head")


def test_a_plan_decides_which_sites_become_integers(conv_net, images, as_file):
    plan = Plan((Quantize("block.first"), Quantize("block.second", weight_bits=4)))
    small = quantize(conv_net, (images[:2],), [(images,)], plan=plan)
    assert small.integers == ("block.first", "block.second")
    assert set(small.floats) == {"stem.0", "block.short", "depthwise.0", "head"}
    stored = as_file(small, (images[:2],)).initializers()
    reach = {abs(a.astype(int)).max() for a in stored.values() if a.dtype == np.int8 and a.ndim == 4}
    assert max(reach) > 7
    assert min(reach) <= 7


@pytest.mark.parametrize(
    ("plan", "message"),
    [(Plan((Quantize("nowhere"),)), "no site 'nowhere'"), (Plan(), "no Quantize edit")],
)
def test_a_plan_that_matches_nothing_is_refused(conv_net, images, plan, message):
    with pytest.raises(PlanError, match=message):
        quantize(conv_net, (images[:2],), [(images,)], plan=plan)


@pytest.mark.parametrize("edit", [Quantize("head", activation_bits=16), Quantize("head", weight_bits=9)])
def test_widths_without_kernels_are_refused(conv_net, images, edit):
    with pytest.raises(PlanError, match="weights take 2 to 8 bits, activations 8"):
        quantize(conv_net, (images[:2],), [(images,)], plan=Plan((edit,)))


def test_calibration_data_is_checked(perceptron, rows):
    with pytest.raises(DataError, match="empty"):
        quantize(perceptron, (rows[:2],), [])
    broken = rows.clone()
    broken[3, 3] = float("nan")
    with pytest.raises(DataError, match="batch 1 holds NaN"):
        quantize(perceptron, (rows[:2],), [(rows,), (broken,)])


@pytest.mark.parametrize(
    "batch", [lambda x: (x, torch.zeros(len(x))), lambda x: {"x": x}, lambda x: x[:, 0], lambda x: ()]
)
def test_calibration_batches_that_are_not_what_the_model_takes_are_refused(perceptron, rows, batch):
    with pytest.raises(DataError, match="without labels"):
        quantize(perceptron, (rows[:2],), [batch(rows)])


def test_a_batch_without_samples_is_refused(perceptron, rows):
    with pytest.raises(DataError, match="batch 1 holds no sample"):
        quantize(perceptron, (rows[:2],), [(rows,), (rows[:0],)])


def test_bare_tensors_are_taken_for_the_one_argument(perceptron, rows):
    bare = quantize(perceptron, rows[:2], [rows], scheme="static", recipe=Recipe("minmax"))
    usual = quantize(perceptron, (rows[:2],), [(rows,)], scheme="static", recipe=Recipe("minmax"))
    assert torch.equal(bare(rows), usual(rows))


def test_layers_without_integer_kernels_stay_in_floating_point_and_are_named():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    x = torch.randn(4, 3, 8, 8)
    small = quantize(model, (x,), [(x,)], recipe=Recipe("minmax"))
    assert small.integers == ("0", "3")
    assert small.floats == {"1": "no integer kernel computes conv_transpose2d"}


def test_a_model_without_layers_is_refused(rows):
    with pytest.raises(ArgumentError, match="nothing to quantize"):
        quantize(nn.ReLU(), (rows[:2],), [(rows,)])


def test_a_model_that_cannot_be_captured_is_refused_with_the_reason(rows):
    class Branches(nn.Module):
        def forward(self, x):
            return x if bool(x.sum() > 0) else -x

    with pytest.raises(ModelError, match="data-dependent control flow"):
        quantize(Branches(), (rows[:2],), [(rows,)])


@pytest.mark.parametrize("ranges", ["minmax", "mse", "percentile"])
def test_constant_activations_and_zero_weights_survive(ranges):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        model[0].weight[2] = 0
        model[2].weight.zero_()
    x = torch.ones(16, 4)
    small = quantize(model, (x[:2],), [(x,)], scheme="static", recipe=Recipe(ranges))
    assert (lower(small)(x) - model(x)).abs().max() < 0.01


def test_a_large_bias_on_a_dead_channel_does_not_overflow_its_sum(as_file):
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[0].weight[0] = 1e-12
        model[0].bias[:] = torch.tensor([50.0, 0.5])
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    small = quantize(model, (x[:2],), [(x,)], scheme="static")
    expected = model(x).detach().numpy()
    assert np.abs(as_file(small, (x[:2],)).run(x) - expected).max() < 0.02 * np.abs(expected).max()


def test_a_quantized_model_keeps_its_call_signature_and_its_outputs(attention, tokens):
    small = quantize(attention, {"tokens": tokens[:2]}, [{"tokens": tokens}])
    assert set(small(tokens=tokens)) == {"logits"}
