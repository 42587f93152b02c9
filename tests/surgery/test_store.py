"""Saving and loading without pickle."""

import json

import pytest
import torch
from torch import nn

from tersor.errors import FolderError, ModelError
from tersor.graph.trace import trace
from tersor.planning.plan import Drop, Factorize, Mask, Plan
from tersor.surgery.apply import apply
from tersor.surgery.store import load, save
from tests.graph.networks import Bert, Llama, ResNet, ViT, image, words
from tests.surgery.cutting import output, random_plan


@pytest.mark.parametrize(
    ("factory", "inputs", "more"),
    [
        (ResNet, image, Plan((Factorize("blocks.1.conv1", 2), Mask("fc.weight", "ratio:0.5")))),
        (ViT, image, Plan((Drop("blocks.0"),))),
        (Bert, words, Plan()),
        (Llama, words, Plan()),
    ],
)
def test_a_saved_model_comes_back_equal(factory, inputs, more, tmp_path):
    model, given = factory().eval(), inputs()
    graph = trace(model, given)
    plan = random_plan(graph, 0.5) + more
    smaller = apply(model, plan, graph).model
    back = load(factory, save(smaller, plan, graph, tmp_path / "model")).eval()
    assert torch.equal(output(back, given), output(smaller, given))
    assert {n: p.shape for n, p in back.named_parameters()} == {
        n: p.shape for n, p in smaller.named_parameters()
    }
    assert not list(tmp_path.rglob("*.p*"))


def test_another_model_or_folder_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    graph = trace(model, (torch.zeros(1, 4),))
    with pytest.raises(FolderError, match="no model saved"):
        load(lambda: model, tmp_path)
    save(model, Plan(), graph, tmp_path)
    with pytest.raises(ModelError, match="another model"):
        load(lambda: nn.Sequential(nn.Linear(4, 8)), tmp_path)
    document = json.loads((tmp_path / "surgery.json").read_text())
    document["attributes"] = [["0", ["forward"], 3]]
    (tmp_path / "surgery.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="no attribute"):
        load(lambda: model, tmp_path)
