import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError
from tersor.quantization.fidelity import fidelity, sqnr
from tersor.quantization.grid import QSpec
from tersor.quantization.hardware import Processor, Scheme, detect, scheme_for, weight_only
from tersor.quantization.probe import probe
from tersor.quantization.quantize import quantize

FULL = QSpec(-127, 127, axis=0, symmetric=True)


@pytest.mark.parametrize(
    ("architecture", "features", "reach", "activation"),
    [
        ("x86", {"avx2"}, 64, QSpec(0, 255)),
        ("x86", {"avx2", "avx512_bf16"}, 64, QSpec(0, 255)),
        ("x86", {"avx2", "avx_vnni"}, 127, QSpec(0, 255)),
        ("x86", {"avx2", "avx512_vnni"}, 127, QSpec(0, 255)),
        ("x86", {"avx2", "amx_int8"}, 127, QSpec(0, 255)),
        ("arm", {"dot", "i8mm"}, 127, QSpec(-128, 127)),
        ("cuda", {"sm90"}, 127, QSpec(-128, 127, symmetric=True)),
        ("other", set(), 127, QSpec(0, 255)),
    ],
)
def test_the_codes_follow_the_processor(architecture, features, reach, activation):
    scheme = scheme_for(Processor(architecture, frozenset(features)))
    assert (scheme.weight.qmin, scheme.weight.qmax) == (-reach, reach)
    assert scheme.activation == activation


@pytest.mark.parametrize("kernel", ["conv", "matmul"])
def test_the_flags_agree_with_the_kernels_of_this_processor(kernel):
    assert not (detect().sums_exactly and probe(kernel, reach=127).saturates)
    assert not probe(kernel, reach=64).saturates
    assert not probe(kernel, reach=scheme_for(detect()).weight.qmax).saturates


def saturating_network():
    """Large positive inputs meet large positive weights in every pair of products."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1)).eval()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.abs_().clamp_(min=0.8 * layer.weight.abs().max())
    return model, torch.rand(16, 16, 8, 8).clamp(min=0.8)


def test_our_range_never_saturates_and_the_full_range_does_where_the_probe_says(as_file, db):
    model, x = saturating_network()
    with torch.no_grad():
        original = model(x)
    ours = quantize(model, (x[:2],), [(x,)])
    assert db(original, as_file(ours, (x[:2],)).run(x)) >= 30
    full = quantize(model, (x[:2],), [(x,)], scheme=Scheme("static", QSpec(0, 255), FULL, "full range"))
    simulated = db(original, full(x).detach())
    lost = simulated - db(original, as_file(full, (x[:2],)).run(x))
    assert (lost > 10) == probe("conv", reach=127).saturates


def test_weights_in_the_portable_range_lose_little(conv_net, images, db):
    portable = Scheme("static", QSpec(0, 255), QSpec(-64, 64, axis=0, symmetric=True), "portable")
    with torch.no_grad():
        original = conv_net(images)
        small = quantize(conv_net, (images[:2],), [(images,)], scheme=portable)
        assert db(original, small(images)) >= 28


def test_fidelity_sees_a_broken_file(perceptron, rows, as_file):
    small = quantize(perceptron, (rows[:2],), [(rows,)], scheme="static")
    file = as_file(small, (rows[:2],))
    good = fidelity(small, lambda arrays: [file.run(*arrays)], [(rows,)])
    bad = fidelity(small, lambda arrays: [file.run(*arrays) * 0.5], [(rows,)])
    assert good >= 40
    assert bad < 10


def test_sqnr_counts_in_decibels():
    assert sqnr(np.ones(4), np.ones(4) * 1.1) == pytest.approx(20.0)


@pytest.mark.parametrize(("bits", "block"), [(3, 32), (4, 16)])
def test_blocks_without_kernels_are_refused(bits, block):
    with pytest.raises(ArgumentError, match="Kernels exist for 4 and 8 bits"):
        weight_only(bits, block=block)
