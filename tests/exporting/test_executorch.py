import numpy as np
import pytest
import torch
from torch import nn

from tersor.cli.opened import find_artefact
from tersor.errors import ExportError, ModelError
from tersor.exporting.executorch_runtime import LARGEST_BATCH, in_parts
from tersor.exporting.export import RUNTIMES, export, open_artefact
from tersor.quantization.fidelity import fidelity
from tersor.quantization.hardware import detect, scheme_for
from tersor.quantization.quantize import quantize
from tersor.quantization.schemes import schemes

installed = pytest.mark.skipif(bool(RUNTIMES["executorch"].missing()), reason="needs executorch")


class Residual(nn.Module):
    """A small network with a sum, a pool and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.pool, self.head = nn.MaxPool2d(2), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        x = self.pool((x + self.second(x)).relu())
        return self.head(x.mean((2, 3)))


class Sentences(nn.Module):
    """Embeddings, a layer that is split in three, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.qkv = nn.Embedding(20, 16), nn.LayerNorm(16), nn.Linear(16, 48)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(self.embed(tokens))).chunk(3, -1)
        return self.head(nn.functional.scaled_dot_product_attention(q, k, v).mean(1))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def images(count: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8)


def in_integers(model: nn.Module, x: torch.Tensor, places: str) -> nn.Module:
    return quantize(model, (x[:2],), [(x,)], scheme=scheme_for(detect(), "static", places))


@installed
def test_a_file_takes_batches_of_any_size(tmp_path):
    model, x = Residual().eval(), images(3 * LARGEST_BATCH - 5)
    session = open_artefact(export(model, (x[:4],), tmp_path / "m.pte", "executorch"))
    for size in (1, LARGEST_BATCH, len(x)):
        expected = model(x[:size]).detach().numpy()
        np.testing.assert_allclose(session([x[:size].numpy()])[0], expected, atol=1e-5)


@installed
def test_a_file_takes_sequences_of_other_lengths(tmp_path):
    model = Sentences().eval()
    artefact = export(model, (torch.randint(20, (4, 12)),), tmp_path / "m.pte", "executorch")
    tokens = torch.randint(20, (3, 7))
    (actual,) = open_artefact(artefact)([tokens.numpy()])
    np.testing.assert_allclose(actual, model(tokens).detach().numpy(), atol=1e-5)


@installed
@pytest.mark.parametrize("places", ["executorch", "onnxruntime"])
def test_the_file_computes_what_the_simulation_computes(places, tmp_path):
    x = images(64)
    small = in_integers(Residual().eval(), x, places)
    session = open_artefact(export(small, (x[:2],), tmp_path / "m.pte", "executorch"))
    assert fidelity(small, session, [(x,)]) >= 40


@installed
def test_layers_that_are_split_run_in_integers_too(tmp_path):
    tokens = torch.randint(20, (32, 12))
    small = in_integers(Sentences().eval(), tokens, "executorch")
    session = open_artefact(export(small, (tokens[:2],), tmp_path / "m.pte", "executorch"))
    assert fidelity(small, session, [(tokens,)]) >= 35


@installed
def test_integers_make_the_file_smaller(tmp_path):
    model, x = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)).eval(), images()
    whole = export(model, (x,), tmp_path / "m.pte", "executorch")
    small = export(in_integers(model, x, "executorch"), (x,), tmp_path / "i.pte", "executorch")
    assert small.size_bytes < 0.4 * whole.size_bytes


@installed
def test_files_open_with_other_threads_go_on_working(tmp_path):
    x = images(2)
    artefact = export(Residual().eval(), (x,), tmp_path / "m.pte", "executorch")
    one, two = open_artefact(artefact), open_artefact(artefact, threads=2)
    third = open_artefact(artefact)
    answers = [session([x.numpy()])[0] for session in (one, two, third, one, two)]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-6)


@installed
def test_an_answer_is_not_overwritten_by_the_next_call(tmp_path):
    x = images(2)
    session = open_artefact(export(Residual().eval(), (x,), tmp_path / "m.pte", "executorch"))
    (first,) = session([x.numpy()])
    before = first.copy()
    session([2 * x.numpy()])
    np.testing.assert_array_equal(first, before)


@installed
@pytest.mark.parametrize("kind", ["dynamic", "int8"])
def test_integers_that_it_has_no_kernels_for_are_refused_with_what_to_do(kind, tmp_path):
    x = torch.randn(8, 16)
    small = quantize(nn.Sequential(nn.Linear(16, 4)), (x,), [(x,)], scheme=kind)
    with pytest.raises(ExportError, match="scheme='static'"):
        export(small, (x,), tmp_path / "m.pte", "executorch")


def test_only_static_integers_are_worth_trying():
    x = torch.randn(8, 16)
    assert schemes(nn.Sequential(nn.Linear(16, 4)), (x,), "executorch") == ("static",)


def test_long_calls_are_made_in_parts_and_joined():
    sizes = []

    def run(inputs):
        sizes.append(len(inputs[0]))
        return (inputs[0] * inputs[1], np.array(1.0))

    whole = in_parts(run, 4)
    answer, single = whole([np.arange(10), np.array([2])])
    np.testing.assert_array_equal(answer, 2 * np.arange(10))
    assert sizes == [4, 4, 2]
    assert single == 1


@installed
def test_a_file_that_was_cut_off_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "m.pte"
    export(Residual().eval(), (images(2),), path, "executorch")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ModelError, match=r"cannot load m\.pte"):
        find_artefact(str(path))
