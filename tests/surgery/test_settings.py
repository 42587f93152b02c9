"""A configuration follows the sizes that a cut left, and the folder of the hub round-trips."""

import pytest
import torch

pytest.importorskip("transformers")

from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from tersor.graph.trace import trace
from tersor.planning.plan import Cut, Drop, Plan
from tersor.surgery.apply import apply, close
from tersor.surgery.settings import follow_sizes
from tersor.surgery.store import load, save
from tersor.surgery.verify import verify

WORDS = {"input_ids": torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))}


def llama(attention: str = "eager", *, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4,
        head_dim=8, vocab_size=50, use_cache=False, tie_word_embeddings=tied, attn_implementation=attention,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def halved(graph, kinds) -> Plan:
    cuts = [Cut(g.name, tuple(range(0, g.size, 2))) for g in graph.groups if g.prunable and g.kind in kinds]
    return close(Plan(tuple(cuts)), graph)


@pytest.mark.parametrize("kinds", [("hidden",), ("residual", "embedding"), ("kv groups", "hidden")])
def test_a_llama_cut_alike_in_all_layers_loads_from_its_folder(kinds, tmp_path):
    model = llama()
    graph = trace(model, WORDS)
    plan = halved(graph, kinds)
    assert plan.edits
    smaller = apply(model, plan, graph).model
    changed = follow_sizes(smaller, model)
    assert changed
    smaller.save_pretrained(tmp_path)
    back = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.allclose(back(**WORDS).logits, smaller(**WORDS).logits, atol=1e-6)
    assert model.config.hidden_size == 32


def test_layers_cut_differently_leave_the_configuration_alone():
    model = llama()
    graph = trace(model, WORDS)
    name = next(g.name for g in graph.groups if g.prunable and g.kind == "hidden")
    smaller = apply(model, Plan((Cut(name, tuple(range(10))),)), graph).model
    assert follow_sizes(smaller, model) == {}
    assert smaller.config.intermediate_size == 48


def test_a_size_that_other_sizes_are_divided_by_is_found_too():
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=50
        )
    ).eval()
    graph = trace(model, WORDS)
    changed = follow_sizes(apply(model, halved(graph, ("hidden",)), graph).model, model)
    assert changed == {"intermediate_size": (48, 24)}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("tied", [False, True])
def test_grouped_queries_are_cut_exactly_with_every_attention(attention, tied):
    model = llama(attention, tied=tied)
    graph = trace(model, WORDS)
    kinds = {group.kind for group in graph.groups if group.prunable}
    assert {"kv groups", "heads per kv group", "hidden"} <= kinds
    plan = halved(graph, kinds)
    assert verify(model, plan, graph, WORDS).ok
    smaller = apply(model, plan, graph).model
    assert (smaller.lm_head.weight is smaller.model.embed_tokens.weight) == tied
    assert sum(p.numel() for p in smaller.parameters()) < 0.5 * sum(p.numel() for p in model.parameters())


def test_one_branch_of_a_block_can_be_dropped_and_stored(tmp_path):
    model = llama()
    graph = trace(model, WORDS)
    assert set(graph.branches) == {
        f"model.layers.{i}.{part}" for i in (0, 1) for part in ("self_attn", "mlp")
    }
    plan = Plan((Drop("model.layers.0.self_attn"), Drop("model.layers.1.mlp")))
    assert verify(model, plan, graph, WORDS).ok
    smaller = apply(model, plan, graph).model
    save(smaller, plan, graph, tmp_path)
    back = load(llama, tmp_path)
    with torch.no_grad():
        assert torch.equal(back(**WORDS).logits, smaller(**WORDS).logits)
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[1].mlp.down_proj.weight.zero_()
        assert torch.allclose(model(**WORDS).logits, smaller(**WORDS).logits, atol=1e-6)
