"""A few architectures of `transformers`, from the coverage bench."""

import pytest
import torch

pytest.importorskip("transformers")

from bench.coverage.zoo import build
from tersor.graph.trace import trace
from tersor.surgery.apply import apply
from tersor.surgery.verify import verify
from tests.surgery.cutting import random_plan


@pytest.mark.parametrize(
    ("name", "kept"),
    [("bert", 0.4), ("vit", 0.45), ("llama", 0.4), ("gpt2", 0.5), ("t5", 0.5), ("mixtral", 0.6)],
)
def test_architectures_of_the_zoo_are_exact(name, kept):
    model, inputs = build(name)
    graph = trace(model, inputs)
    plan = random_plan(graph, 0.5)
    assert verify(model, plan, graph, inputs).ok
    smaller = apply(model, plan, graph).model
    assert sum(p.numel() for p in smaller.parameters()) <= kept * sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        smaller(**inputs)
