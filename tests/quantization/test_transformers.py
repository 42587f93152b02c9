import numpy as np
import pytest
import torch
from torch import nn

from bench.quantization.products import products
from tersor.exporting.export import export
from tersor.exporting.integers import session_entries
from tersor.quantization.hardware import weight_only
from tersor.quantization.quantize import quantize


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens=tokens)["logits"]


def test_a_transformer_becomes_dynamic_products_by_default(attention, tokens, as_file, db):
    small = quantize(attention, {"tokens": tokens[:2]}, [{"tokens": tokens}])
    file = as_file(small, {"tokens": tokens[:2]})
    real = file.run(tokens)
    assert small.scheme.kind == "dynamic"
    # The classifier reads one token a sample, and is a product as well.
    assert file.operators().count("DynamicQuantizeMatMul") == 5
    assert db(logits(small, tokens), real) >= 40
    assert db(logits(attention, tokens), real) >= 25


def test_a_transformer_can_have_static_ranges(attention, tokens, as_file, db):
    small = quantize(attention, {"tokens": tokens[:2]}, [{"tokens": tokens}], scheme="static")
    file = as_file(small, {"tokens": tokens[:2]})
    real = file.run(tokens)
    assert file.operators().count("MatMulIntegerToFloat") == 4
    assert db(logits(small, tokens), real) >= 40
    assert db(logits(attention, tokens), real) >= 25


@pytest.mark.parametrize(("scheme", "count"), [("dynamic", 5), ("static", 3)])
def test_each_product_of_the_file_computes_what_its_layer_does_on_the_same_values(
    attention, tokens, tmp_path, scheme, count
):
    small = quantize(attention, {"tokens": tokens[:2]}, [{"tokens": tokens}], scheme=scheme)
    artefact = export(small, {"tokens": tokens[:2]}, tmp_path / "model.onnx")
    found = products(artefact, [tokens.numpy()])
    # The fourth static one reads codes that were moved on their way.
    assert len(found) == count
    # Exact but for the last bits: no value falls to another code when both see the same values.
    assert min(found) >= 110


@pytest.mark.parametrize(("bits", "block", "symmetric"), [(4, 32, True), (4, 64, False), (8, 32, True)])
def test_weights_alone_become_blocks(as_file, db, bits, block, symmetric):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 256), nn.GELU(), nn.Linear(256, 64)).eval()
    x = torch.randn(4, 3, 128)
    small = quantize(model, (x[:2],), [(x,)], scheme=weight_only(bits, block=block, symmetric=symmetric))
    file = as_file(small, (x[:2],))
    real = file.run(x, entries=session_entries(small).items())
    with torch.no_grad():
        simulated, original = small(x), model(x)
    assert file.operators().count("MatMulNBits") == 2
    # The kernel rounds what it reads, as the simulation does; the operators one by one do not.
    assert db(simulated, real) >= 80
    assert 30 <= db(simulated, file.run(x, kernels=False)) <= 60
    assert db(original, simulated) >= {4: 15, 8: 35}[bits]


def test_inputs_of_weights_alone_can_stay_exact(as_file, db):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 32)).eval(), torch.randn(4, 3, 64)
    small = quantize(model, (x[:2],), [(x,)], scheme=weight_only(4, exact_inputs=True))
    real = as_file(small, (x[:2],)).run(x, entries=session_entries(small).items())
    assert db(small(x).detach(), real) >= 80


def test_four_bit_weights_take_half_a_byte_each(as_file):
    model = nn.Sequential(nn.Linear(256, 512, bias=False)).eval()
    x = torch.randn(2, 3, 256)
    file = as_file(quantize(model, (x,), [(x,)], scheme="int4"), (x,))
    import onnx

    stored = [i for i in onnx.load(file.path).graph.initializer if i.data_type == onnx.TensorProto.INT4]
    assert max(len(i.raw_data) for i in stored) == 256 * 512 // 2


def test_layers_of_other_kinds_stay_in_floating_point_with_the_reason(conv_net, images):
    small = quantize(conv_net, (images[:2],), [(images,)], scheme="dynamic")
    assert small.integers == ("head",)
    assert small.floats["stem.0"] == "dynamic integers have no fast kernel for it"


def test_a_weight_used_as_a_matrix_is_a_site_too(as_file, db):
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16, 8) / 4)
            self.bias = nn.Parameter(torch.randn(8))

        def forward(self, x):
            return torch.addmm(self.bias, x, self.weight)

    torch.manual_seed(0)
    model, x = Product().eval(), torch.randn(32, 16)
    small = quantize(model, (x[:2],), [(x,)], scheme="static")
    assert len(small.integers) == 1
    assert db(small(x).detach(), as_file(small, (x[:2],)).run(x)) >= 40
    assert np.allclose(small(x).detach(), model(x).detach(), atol=0.2)


def test_a_vision_transformer_is_dynamic_in_spite_of_its_patch_convolution():
    patches = nn.Sequential(
        nn.Conv2d(3, 16, 4, stride=4), nn.Flatten(2), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4)
    )
    x = torch.randn(4, 3, 16, 16)
    small = quantize(patches, (x[:2],), [(x,)])
    assert small.scheme.kind == "dynamic"
    assert small.integers == ("2", "4")
