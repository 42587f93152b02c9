from dataclasses import dataclass

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError, ExportError
from tersor.exporting.export import RUNTIMES, export, open_artefact
from tersor.loading.inputs import to_numpy
from tersor.quantization.quantize import quantize

#: Every registered runtime that is installed must pass the checks below. Compiling is slow and has its own test.
COMPILED = ("torch-compile", "aotinductor")
QUICK = [name for name, runtime in RUNTIMES.items() if name not in COMPILED and not runtime.missing()]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


@dataclass
class Output:
    loss: torch.Tensor
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]


class Encoder(nn.Module):
    """Several inputs of several types, an optional one, switches, and a dataclass as output."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids, mask=None, scale=None, *, double=False, power=1):
        hidden = self.embed(ids)
        if mask is not None:
            hidden = hidden * mask[..., None]
        if scale is not None:
            hidden = hidden * scale[:, None, None] ** power
        logits = self.head(hidden.mean(1)) * (2 if double else 1)
        return Output(logits.sum(), logits, (hidden, ids))


def ids(batch=3):
    return torch.arange(batch * 5).reshape(batch, 5) % 11


ENCODER_INPUTS = {
    "positional": (ids(),),
    "positional with None": (ids(), None),
    "named, out of order": {"mask": torch.ones(3, 5, dtype=torch.bool), "double": True, "ids": ids()},
    "named, all": {"ids": ids(), "mask": None, "scale": torch.arange(3.0), "power": 2},
    "one sample": (ids(1),),
}


@pytest.mark.parametrize("runtime", QUICK)
def test_the_file_gives_what_the_model_gives_on_any_batch(runtime, tmp_path):
    model = network()
    session = open_artefact(export(model, (torch.randn(2, 1, 4, 4),), tmp_path / "m", runtime))
    for batch in (1, 2, 7):
        x = torch.randn(batch, 1, 4, 4)
        (actual,) = session([x.numpy()])
        np.testing.assert_allclose(actual, model.eval()(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("runtime", QUICK)
@pytest.mark.parametrize("inputs", ENCODER_INPUTS.values(), ids=ENCODER_INPUTS)
def test_any_call_and_any_output_can_be_exported(runtime, inputs, tmp_path):
    model = Encoder()
    artefact = export(model, inputs, tmp_path / "m", runtime)
    assert artefact.outputs == ("logits", "loss", "hidden_0", "hidden_1")
    logits, loss, _, codes = open_artefact(artefact)(to_numpy(inputs))
    expected = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    np.testing.assert_allclose(logits, expected.logits.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(loss, expected.loss.detach().numpy(), atol=1e-5)
    np.testing.assert_array_equal(codes, ids(len(codes)))


@pytest.mark.parametrize("runtime", QUICK)
def test_sequences_of_another_length_can_be_run(runtime, tmp_path):
    model = Encoder()
    session = open_artefact(export(model, (ids(),), tmp_path / "m", runtime))
    longer = torch.arange(2 * 9).reshape(2, 9) % 11
    np.testing.assert_allclose(session([longer.numpy()])[0], model(longer).logits.detach().numpy(), atol=1e-5)


def test_inputs_are_named_as_in_forward(tmp_path):
    artefact = export(Encoder(), (ids(), torch.ones(3, 5)), tmp_path / "m.onnx")
    assert artefact.inputs == ("ids", "mask")


@pytest.mark.parametrize("runtime", QUICK)
def test_the_model_is_left_as_it_was(runtime, tmp_path):
    model = network().train()
    model(torch.randn(4, 1, 4, 4)).sum().backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model[0].eval()
    export(model, (torch.randn(4, 1, 4, 4),), tmp_path / "m", runtime)
    assert [module.training for module in model] == [False, True, True, True, True, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, model.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())


class TwoSequences(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)

    def forward(self, source, target, weight):
        return (self.embed(source).mean(1) - self.embed(target).mean(1)) * weight


def test_the_axes_that_vary_have_names(tmp_path):
    inputs = (ids(), ids()[:, :3], torch.ones(3, 8))
    graph = onnx.load(export(TwoSequences(), inputs, tmp_path / "m.onnx").path).graph
    shapes = [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.input
    ]
    assert shapes == [["batch", "sequence"], ["batch", "sequence_2"], ["batch", 8]]


def test_the_weights_are_inside_the_file_and_its_hash_and_size_are_recorded(tmp_path):
    artefact = export(nn.Linear(64, 64), (torch.randn(2, 64),), tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert artefact.size_bytes == artefact.path.stat().st_size > 64 * 64 * 4
    assert len(artefact.sha256) == 64


def test_weights_too_large_for_one_file_lie_beside_it_and_count(tmp_path, monkeypatch):
    monkeypatch.setattr("tersor.exporting.onnx_file._ONE_FILE_BYTES", 1000)
    artefact = export(nn.Linear(64, 64), (torch.randn(2, 64),), tmp_path / "m.onnx")
    assert artefact.size_bytes == sum(path.stat().st_size for path in tmp_path.iterdir()) > 64 * 64 * 4
    assert artefact.path.stat().st_size < 64 * 64 * 4


@pytest.mark.parametrize("runtime", QUICK)
def test_exporting_and_opening_print_nothing(runtime, tmp_path, capfd):
    open_artefact(export(network(), (torch.randn(2, 1, 4, 4),), tmp_path / "any.name", runtime))
    assert capfd.readouterr() == ("", "")


def test_torch_compile_gives_the_same(tmp_path):
    if RUNTIMES["torch-compile"].missing():
        pytest.skip("no C++ compiler")
    export(nn.Linear(3, 2), (torch.randn(2, 3),), tmp_path / "m.pt2", "torch-compile")


@pytest.mark.slow
def test_code_compiled_ahead_of_time_gives_the_same_on_any_batch(tmp_path):
    if RUNTIMES["aotinductor"].missing():
        pytest.skip("no C++ compiler")
    artefact = export(network(), (torch.randn(2, 1, 4, 4),), tmp_path / "m", "aotinductor")
    x, session = torch.randn(7, 1, 4, 4), open_artefact(artefact, threads=1)
    torch.testing.assert_close(
        torch.from_numpy(session([x.numpy()])[0]), network().eval()(x), atol=1e-5, rtol=1e-4
    )
    artefact.path.write_bytes(artefact.path.read_bytes() + b" ")
    with pytest.raises(ExportError, match="its hash changed"):
        open_artefact(artefact)


def test_integers_are_not_compiled_ahead_of_time(tmp_path):
    if RUNTIMES["aotinductor"].missing():
        pytest.skip("no C++ compiler")
    x = torch.randn(8, 4)
    with pytest.raises(ExportError, match="Export it to 'onnxruntime'"):
        export(quantize(nn.Linear(4, 2), (x[:2],), [(x,)]), (x[:2],), tmp_path / "m", "aotinductor")


class Drawing(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Branching(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, -1)[:, :3] + x[:, :3]


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("needs a bigger boat")


class Untranslatable(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Drawing(), "Output `output` .* relative error .* random numbers"),
        (Branching(), "cannot capture the model.*branches on tensor values"),
        (FixedBatch(), "batch sizes written as constants"),
        (Failing(), "needs a bigger boat"),
        (Untranslatable(), "bessel_j0.*runtime='torch'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_model_that_cannot_be_exported_is_refused_with_the_next_step(model, message, tmp_path):
    with pytest.raises(ExportError, match=f"(?s){message}"):
        export(model, (torch.randn(2, 3),), tmp_path / "m.onnx")


def test_a_list_of_tensors_is_refused_by_name(tmp_path):
    with pytest.raises(ExportError, match="Argument `input` is a list of tensors"):
        export(nn.Identity(), ([torch.ones(2), torch.ones(2)],), tmp_path / "m.onnx")


def test_an_unknown_runtime_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(ArgumentError, match="Did you mean 'onnxruntime'"):
        export(nn.Identity(), (torch.ones(2),), tmp_path / "m.onnx", "onnx-runtime")


@pytest.mark.parametrize("runtime", QUICK)
def test_a_damaged_file_is_refused(runtime, tmp_path):
    artefact = export(nn.Linear(3, 2), (torch.randn(2, 3),), tmp_path / "m", runtime)
    artefact.path.write_bytes(artefact.path.read_bytes()[:-20])
    with pytest.raises(ExportError, match=r"export the model again|Export the model again"):
        open_artefact(artefact)


def test_a_changed_torch_file_is_not_opened(tmp_path):
    artefact = export(nn.Linear(3, 2), (torch.randn(2, 3),), tmp_path / "m.pt2", "torch")
    other = export(nn.Linear(3, 2), (torch.randn(2, 3),), tmp_path / "n.pt2", "torch")
    artefact.path.write_bytes(other.path.read_bytes())
    with pytest.raises(ExportError, match="its hash changed"):
        open_artefact(artefact)
