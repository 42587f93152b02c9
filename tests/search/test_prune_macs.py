"""A share of the multiply-adds that is asked for goes, whatever the network, or the error says why not."""

import pytest
import torch
from torch import nn

from tersor.analysis.facts import facts
from tersor.errors import PlanError
from tersor.graph.trace import trace
from tersor.loading.inputs import as_inputs
from tersor.search.verbs import prune


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(16, 16, 3, padding=1, bias=False),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.Conv2d(16, 16, 3, padding=1, bias=False),
                nn.BatchNorm2d(16),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.head(x.mean((2, 3)))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 32, 2, batch_first=True), nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(32, 24), nn.Linear(24, 32)
        layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.layers(self.embed(tokens), mask=mask, is_causal=True))


def mlp():
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))


def convnet():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


def encoder():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.Sequential(nn.Linear(8, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 4))


NETWORKS = {
    "mlp": (mlp, lambda: torch.randn(3, 16)),
    "convolutions": (convnet, lambda: torch.randn(2, 3, 8, 8)),
    "residual": (Residual, lambda: torch.randn(2, 3, 8, 8)),
    "encoder": (encoder, lambda: torch.randn(2, 6, 8)),
    "lstm": (Reader, lambda: torch.randn(2, 6, 8)),
    "decoder": (Decoder, lambda: torch.randint(0, 32, (2, 6))),
}


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_asked_share_of_the_multiply_adds_goes_and_at_most_one_unit_more(name, ratio):
    torch.manual_seed(0)
    make, inputs = NETWORKS[name]
    network, example = make(), inputs()
    small = prune(network, example, ratio=ratio).model
    before, after = (facts(one, as_inputs(example)).macs for one in (network, small))
    # Of the units that are left, the cheapest one that could have stayed.
    graph = trace(small, example)
    unit = min(graph.macs() - graph.macs({g.name: range(g.size - 1)}) for g in graph.groups if _free(g))
    assert (1 - ratio) * before - 2 * unit <= after <= (1 - ratio) * before


def _free(group):
    return group.prunable and group.size > 1 and "head" not in group.kind and group.kind != "residual"


def test_gpt_2_loses_the_asked_share():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=64, n_positions=32, n_embd=48, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    network, inputs = transformers.GPT2LMHeadModel(config), {"input_ids": torch.randint(0, 64, (2, 8))}
    small = prune(network, inputs, ratio=0.3).model
    share = 1 - facts(small, inputs).macs / facts(network, inputs).macs
    assert 0.3 <= share <= 0.31


@pytest.mark.parametrize("criterion", ["taylor", "activation", "random"])
def test_every_kind_of_criterion_reaches_the_share_on_an_encoder(criterion):
    from tersor.loading.task import Batch

    torch.manual_seed(0)
    network, example = encoder(), torch.randn(4, 6, 8)
    batch = Batch((example,), None, ())
    plan = prune(network, example, ratio=0.3, criterion=criterion, batches=[batch]).plan
    graph = trace(network, example)
    assert 0.3 <= 1 - graph.macs({cut.group: cut.keep for cut in plan.edits}) / graph.macs() <= 0.35


def test_a_share_that_cannot_go_is_refused_with_what_can():
    with pytest.raises(PlanError, match=r"98.0% fewer multiply-adds cannot be reached: 8\d\.\d%.*output"):
        prune(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), torch.randn(2, 8), ratio=0.98)


@pytest.mark.parametrize("by", ["global", "uniform"])
def test_a_plan_that_would_be_empty_is_refused(by):
    network = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(PlanError, match="takes no unit"):
        prune(network, torch.randn(2, 8), ratio=0.05, by=by)
    assert len(prune(network, torch.randn(2, 8), ratio=0.05, by="macs").plan) == 1


def test_a_ratio_of_zero_changes_nothing():
    assert len(prune(mlp(), torch.randn(2, 16), ratio=0).plan) == 0
