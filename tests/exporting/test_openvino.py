import pytest
import torch
from torch import nn

from tersor.exporting.export import export, open_artefact, with_options
from tersor.quantization.fidelity import fidelity
from tersor.quantization.hardware import detect, weight_only
from tersor.quantization.quantize import quantize
from tersor.quantization.schemes import schemes

pytest.importorskip("openvino")


def products():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(128, 256), nn.GELU(), nn.Linear(256, 64)).eval()


@pytest.fixture
def x():
    return torch.randn(16, 3, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["static"])
def test_the_file_computes_what_the_simulation_computes(kind, x, tmp_path):
    model = products()
    assert kind in schemes(model, (x,), "openvino")
    small = quantize(model, (x[:2],), [(x,)], scheme=kind)
    assert fidelity(small, open_artefact(export(small, (x,), tmp_path / "m.onnx", "openvino")), [(x,)]) >= 40


@pytest.mark.parametrize(
    "scheme",
    [weight_only(4, block=128), weight_only(8), weight_only(8, exact_inputs=True)],
    ids=["4 bits", "8 bits", "exact inputs"],
)
def test_products_round_what_they_read_as_the_scheme_says(scheme, x, tmp_path):
    if not detect().sums_exactly:
        pytest.skip("these kernels need 32-bit sums")
    small = quantize(products(), (x[:2],), [(x,)], scheme=scheme)
    artefact = export(small, (x,), tmp_path / "m.onnx", "openvino")
    assert fidelity(small, open_artefact(artefact), [(x,)]) >= 80
    other = with_options(artefact, input_block=0 if scheme.activation else 32)
    assert fidelity(small, open_artefact(other), [(x,)]) <= 60


class Last(nn.Module):
    """What a layer without a bias gives at the last place, as language models take it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(16, 16), nn.Linear(16, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(x))[:, -1]


@pytest.mark.parametrize("quantized", [False, True])
def test_a_choice_of_one_place_keeps_the_axes(quantized, tmp_path):
    torch.manual_seed(0)
    model, x = Last().eval(), torch.randn(8, 6, 16)
    if quantized:
        model = quantize(model, (x[:2],), [(x,)], scheme="static")
    (answer,) = open_artefact(export(model, (x[:2],), tmp_path / "m.onnx", "openvino"))([x.numpy()])
    assert answer.shape == (8, 5)
