"""Roles come from the operations that ran, whatever the layer is called."""

import pytest
import torch
from torch import nn

from tersor.analysis.uses import first_names, patches, uses
from tests.analysis.networks import Attention


def roles(model, *shape):
    return [
        (use.parameter, use.role, use.reads, use.writes) for use in uses(model.eval(), (torch.randn(shape),))
    ]


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    [
        (nn.Linear(3, 2), (4, 3), ("weight", "contracts", (1,), (0,))),
        (nn.Linear(3, 2, bias=False), (4, 5, 3), ("weight", "contracts", (1,), (0,))),
        (nn.Conv1d(3, 2, 3), (1, 3, 5), ("weight", "contracts", (1, 2), (0,))),
        (nn.Conv3d(3, 2, 1), (1, 3, 2, 2, 2), ("weight", "contracts", (1, 2, 3, 4), (0,))),
        (nn.Conv2d(4, 8, 1, groups=2), (1, 4, 2, 2), ("weight", "contracts", (1, 2, 3), (0,))),
        (nn.Conv2d(4, 8, 1, groups=4), (1, 4, 2, 2), ("weight", "contracts", (), (0, 1, 2, 3))),
        (nn.ConvTranspose2d(4, 3, 2), (1, 4, 2, 2), ("weight", "contracts", (0,), (1, 2, 3))),
        (nn.BatchNorm2d(3), (1, 3, 2, 2), ("weight", "scales", (), (0,))),
        (nn.LayerNorm(3), (2, 3), ("weight", "scales", (), (0,))),
        (nn.GroupNorm(1, 3), (2, 3), ("weight", "scales", (), (0,))),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, nn.Module) else "",
)
def test_the_role_of_a_parameter_is_what_the_operation_does_with_it(model, shape, expected):
    assert roles(model, *shape) == [expected]


def test_hand_written_projections_are_seen_with_their_own_orientation():
    found = {use[0]: use[2] for use in roles(Attention(), 2, 4, 8)}
    assert found == {"q": (0,), "k": (0,), "v.weight": (1,), "out.weight": (1,)}


def test_fused_attention_is_opened():
    found = [use[0] for use in roles(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, 3, 8)]
    assert {
        "self_attn.in_proj_weight",
        "self_attn.out_proj.weight",
        "linear1.weight",
        "linear2.weight",
    } <= set(found)


class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 4, 6))

    def forward(self, x):
        return torch.einsum("btc,hdc->bthd", x, self.weight)


def test_several_axes_may_be_written_at_once():
    assert roles(Einsum(), 2, 3, 6) == [("weight", "contracts", (2,), (0, 1))]


class Left(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return (self.weight @ x.T).T


def test_a_weight_on_the_left_reads_its_last_axis():
    model, x = Left(), torch.randn(3, 6)
    use = uses(model, (x,))[0]
    assert (use.reads, use.writes) == ((1,), (0,))
    assert torch.equal(use.inputs(), x)
    torch.testing.assert_close(use.outputs(), model(x))


def test_tied_tensors_go_by_their_first_name():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    assert first_names(model) == {"0.weight": "0.weight", "1.weight": "0.weight"}
    found = uses(model, (torch.tensor([[1, 2]]),))
    assert [(use.parameter, use.role, use.reads) for use in found] == [
        ("0.weight", "looks up", (0,)),
        ("0.weight", "contracts", (1,)),
    ]


@pytest.mark.parametrize(
    "layer",
    [nn.Conv1d(3, 4, 3, stride=2, padding=1), nn.Conv2d(3, 4, (3, 2), (1, 2), (2, 1), (2, 1)), nn.Conv3d(3, 4, 2),
     nn.Linear(7, 4)],
    ids=str,
)  # fmt: skip
def test_inputs_times_weight_are_the_outputs(layer):
    layer = layer.double()
    shape = (2, 7) if isinstance(layer, nn.Linear) else (2, 3, *[6] * (layer.weight.dim() - 2))
    x = torch.randn(shape, dtype=torch.float64)
    use = uses(layer, (x,))[0]
    matrix = layer.weight.permute(use.reads + use.writes).flatten(0, len(use.reads) - 1)
    torch.testing.assert_close(use.inputs() @ matrix + layer.bias, use.outputs())


def test_patches_of_a_padded_line():
    assert patches(torch.ones(1, 1, 2), (3,), [1], [1], [1]).tolist() == [[0, 1, 1], [1, 1, 0]]
