import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tersor.exporting.codes_of_tables import hold_codes
from tersor.exporting.export import export, open_artefact
from tersor.graph.trace import trace
from tersor.planning.anatomy import Left, anatomy
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.quantize import quantize, sites
from tersor.quantization.sensitivity import sensitivity
from tersor.quantization.tables import FakeQuantizeTable

ROWS, WIDTH = 5000, 64


class Language(nn.Module):
    """A large table, a small one, a layer, and a head that may be the table again."""

    def __init__(self, tied=False):
        super().__init__()
        self.words, self.places = nn.Embedding(ROWS, WIDTH, padding_idx=0), nn.Embedding(8, WIDTH)
        self.layer, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, ROWS if tied else 4, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, tokens):
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(x + torch.relu(self.layer(x)))


@pytest.fixture
def language():
    torch.manual_seed(0)
    return Language().eval()


@pytest.fixture
def text():
    return torch.randint(0, ROWS, (16, 8), generator=torch.Generator().manual_seed(1))


def bytes_of(model, text, path, runtime="onnxruntime"):
    return export(model, (text[:2],), path, runtime).size_bytes


@pytest.mark.parametrize("scheme", ["static", "dynamic", "int8", "int4"])
def test_a_large_table_is_held_in_a_byte_an_entry_and_a_small_one_stays(language, text, tmp_path, scheme):
    small = quantize(language, (text[:2],), [(text,)], scheme=scheme)
    assert small.integers[0] == "words"
    assert "places" in small.floats
    size = bytes_of(small, text, tmp_path / "small.onnx")
    assert size < ROWS * WIDTH + 4 * ROWS + 4 * WIDTH * (WIDTH + 20) + 12_000


@pytest.mark.parametrize("tied", [False, True])
def test_the_lowered_table_computes_the_simulation_bit_for_bit(text, tied):
    torch.manual_seed(0)
    model = Language(tied).eval()
    small = quantize(model, (text[:2],), [(text,)], scheme="static")
    lowered = copy.deepcopy(small.graph_module)
    hold_codes(lowered)
    lowered.recompile()
    assert [buffer.dtype for name, buffer in lowered.named_buffers() if name.endswith("_codes")] == [
        torch.int8
    ]
    assert torch.equal(lowered(text), small(text))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "executorch"])
def test_the_file_computes_what_the_simulation_does(language, text, tmp_path, db, runtime):
    pytest.importorskip(runtime)
    small = quantize(language, (text[:2],), [(text,)], scheme="static")
    suffix = ".pte" if runtime == "executorch" else ".onnx"
    artefact = export(small, (text[:2],), tmp_path / f"small{suffix}", runtime)
    with torch.no_grad():
        simulated = small(text[:2])
    real = open_artefact(artefact)([text[:2].numpy()])[0]
    assert db(simulated, real) >= 40


def test_a_table_alone_is_off_by_half_a_step_of_its_row_at_most(language, text):
    small = quantize(language, (text[:2],), [(text,)], scheme="static")
    table = next(module for module in small.modules() if isinstance(module, FakeQuantizeTable))
    weight = language.words.weight.detach()
    error = (table(weight, torch.arange(ROWS)) - weight).abs()
    reach = weight.abs().amax(1, keepdim=True)
    assert (error <= reach / 127 / 2 * (1 + 1e-5)).all()
    assert error.max() > 0


@given(st.integers(0, 2**31 - 1), st.sampled_from([1e-20, 1e-3, 1.0, 1e6]), st.integers(1, 5))
def test_rounding_of_rows_is_bounded_at_every_magnitude(seed, scale, width):
    rows = np.random.default_rng(seed).normal(size=(6, width)).astype(np.float32) * np.float32(scale)
    rows[2] = 0.0
    weight = torch.from_numpy(rows)
    rounded = FakeQuantizeTable(weight)(weight, torch.arange(6)).double()
    limit = weight.double().abs().amax(1, keepdim=True) / 254
    assert ((rounded - weight.double()).abs() <= limit * (1 + 1e-4) + 1e-37).all()
    assert (rounded[2] == 0).all()


def test_a_plan_leaves_the_table_in_floating_point(language, text):
    assert sites(language, (text,)) == ("words", "layer", "head")
    plan = Plan((Quantize("layer"),))
    small = quantize(language, (text[:2],), [(text,)], scheme="dynamic", plan=plan)
    assert small.integers == ("layer",)
    assert "plan" in small.floats["words"]
    assert not any(isinstance(module, FakeQuantizeTable) for module in small.modules())


def test_a_table_alone_is_nothing_to_compute_in_integers(text):
    from tersor.errors import ArgumentError

    with pytest.raises(ArgumentError, match="nothing to quantize"):
        quantize(nn.Embedding(ROWS, WIDTH), (text[:2],), [(text,)])


def test_the_table_has_a_cost_of_its_own_and_rounds_nothing_when_rounding_is_off(language, text):
    small = quantize(language, (text[:2],), [(text,)], scheme="dynamic")
    costs = {cost.site: cost.noise for cost in sensitivity(small, [(text,)])}
    assert set(costs) == {"words", "layer", "head"}
    assert 0 < costs["words"] < 1e-3
    with small.rounding(lambda _: False), torch.no_grad():
        torch.testing.assert_close(small(text), language(text))


def test_the_table_trains_through_its_rounding(language, text):
    small = quantize(language, (text[:2],), [(text,)], scheme="dynamic")
    small.train()
    small(text).square().mean().backward()
    gradient = small.graph_module.words.weight.grad
    taken = torch.zeros(ROWS, dtype=torch.bool)
    taken[text.flatten()] = True
    assert (gradient[taken].abs().sum(1) > 0).all()
    assert (gradient[~taken] == 0).all()


def test_the_price_in_bytes_knows_the_table(language, text):
    found = anatomy(trace(language, (text,)))
    saved = found.bytes(Left(), "float") - found.bytes(Left(), "dynamic")
    assert saved == 3 * (ROWS * WIDTH + WIDTH * WIDTH + 4 * WIDTH)
