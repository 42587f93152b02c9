import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError
from tersor.exporting.export import export, open_artefact
from tersor.exporting.precision import in_precision, precisions
from tersor.quantization.hardware import Processor


def test_16_bits_are_offered_where_the_processor_and_the_runtime_have_them():
    with_units = Processor("x86", frozenset({"avx2", "avx512_bf16"}))
    without = Processor("x86", frozenset({"avx2"}))
    assert precisions("openvino", with_units) == precisions("aotinductor", with_units) == ("bf16",)
    assert precisions("onnxruntime", with_units) == precisions("openvino", without) == ()


def test_a_model_in_16_bits_takes_and_gives_float32_and_is_a_file_of_its_own(tmp_path):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).eval(), torch.randn(5, 8)
    half = in_precision(model, "bf16")
    (actual,) = open_artefact(export(half, (x,), tmp_path / "m.pt2", "torch"))([x.numpy()])
    expected = model(x).detach()
    error = (torch.from_numpy(actual) - expected).norm() / expected.norm()
    assert 1e-4 < error < 2e-2
    assert model[0].weight.dtype == torch.float32


def test_outputs_of_any_form_are_widened():
    class Two(nn.Module):
        def forward(self, x, ids):
            return {"y": x * 2, "ids": ids}

    found = in_precision(Two(), "f16")(torch.ones(1), ids=torch.arange(2))
    assert found["y"].dtype == torch.float32
    assert found["ids"].dtype == torch.int64


def test_an_unknown_type_is_refused():
    with pytest.raises(ArgumentError, match="'bf16', 'f16'"):
        in_precision(nn.Linear(1, 1), "fp16")
