import pytest
import torch

from tersor.errors import ArgumentError
from tersor.quantization.quantize import quantize
from tersor.quantization.recipe import Recipe
from tersor.quantization.sensitivity import quantize_within, sensitivity


@pytest.fixture
def spoiled(conv_net):
    """One layer has weights, on an input that is always zero, that make all its others small codes."""
    with torch.no_grad():
        conv_net.block.norm.bias[0] = -100.0
        conv_net.block.second.weight[:, 0] = 20.0
    return conv_net


def test_the_spoiled_site_is_the_dearest(spoiled, images):
    small = quantize(spoiled, (images[:2],), [(images,)], recipe=Recipe("minmax"))
    before = small(images)
    costs = sensitivity(small, [(images,)])
    assert costs[0].site == "block.second"
    assert {cost.site for cost in costs} == set(small.integers)
    assert torch.equal(small(images), before)


def test_sites_that_hurt_stay_in_floating_point_with_their_cost(spoiled, images, db):
    original = spoiled(images).detach()
    whole = db(
        original, quantize(spoiled, (images[:2],), [(images,)], recipe=Recipe("minmax"))(images).detach()
    )
    small = quantize_within(spoiled, (images[:2],), [(images,)], least_db=whole + 5, recipe=Recipe("minmax"))
    assert "dB" in small.floats["block.second"]
    assert small.integers
    assert db(original, small(images).detach()) >= whole + 4.9


def test_what_cannot_be_reached_is_refused_with_advice(conv_net, images):
    with pytest.raises(ArgumentError, match="No set of sites reaches 200 dB"):
        quantize_within(conv_net, (images[:2],), [(images,)], least_db=200.0)
