"""Time and memory of a trace with all groups, on models of full size. Run with `python -m bench.coverage.fullsize`.

Each model runs in a process of its own, on one thread. Memory is the highest resident size during the trace above
that just before it, when the model is already there. Llama is on the meta device: it has shapes and no values.
"""

import json
import multiprocessing as mp
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from bench.coverage.harness import prepare
from bench.coverage.images import creator
from tersor.graph.trace import trace
from tersor.loading.inputs import Inputs

RESULTS = Path(__file__).parents[1] / "results"
MOST_S, MOST_BYTES = 20.0, 2 * 2**30


def image_model(name: str) -> tuple[nn.Module, Inputs]:
    """Return a model of `timm` and one image of its size."""
    return creator()(name, pretrained=False).eval(), (torch.zeros(1, 3, 224, 224),)


def bert() -> tuple[nn.Module, Inputs]:
    """Return BERT base and 128 words."""
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig()).eval(), {
        "input_ids": torch.ones(1, 128, dtype=torch.long)
    }


def llama(attention: str) -> tuple[nn.Module, Inputs]:
    """Return the sizes of Llama 3.2 1B without values, and 128 words."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        head_dim=64, vocab_size=128256, tie_word_embeddings=True, use_cache=False, attn_implementation=attention,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
        return model, {"input_ids": torch.ones(1, 128, dtype=torch.long)}


MODELS: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "ResNet-50": lambda: image_model("resnet50"),
    "ViT-B/16": lambda: image_model("vit_base_patch16_224"),
    "BERT base": bert,
    "Llama 1B, eager, meta": lambda: llama("eager"),
    "Llama 1B, SDPA, meta": lambda: llama("sdpa"),
}


def examine(name: str, sender: Any) -> None:
    """Send the row of one model."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    prepare()
    model, inputs = MODELS[name]()
    before = psutil.Process().memory_info().rss
    began = time.perf_counter()
    graph = trace(model, inputs)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sender.send(
        {
            "parameters": graph.parameters(),
            "groups": len(graph.groups),
            "prunable": sum(group.prunable for group in graph.groups),
            "trace_s": round(seconds, 2),
            "peak_bytes": max(peak - before, 0),
        }
    )


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    held = all(row["trace_s"] < MOST_S and row["peak_bytes"] < MOST_BYTES for row in rows.values())
    lines = [
        "# Trace and groups of models of full size", "",
        f"Promised: under {MOST_S:g} s and 2 GiB above the model. {'Held' if held else 'Missed'}. One thread.", "",
        "| model | parameters | groups | prunable | trace (s) | memory above the model (MiB) |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, row in rows.items():
        cells = (
            name,
            f"{row['parameters']:,}",
            row["groups"],
            row["prunable"],
            row["trace_s"],
            row["peak_bytes"] // 2**20,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Examine every model."""
    rows = {}
    for name in MODELS:
        receiver, sender = mp.get_context("spawn").Pipe(duplex=False)
        process = mp.get_context("spawn").Process(target=examine, args=(name, sender))
        process.start()
        rows[name] = receiver.recv()
        process.join()
        print(name, rows[name], flush=True)
    (RESULTS / "fullsize.json").write_text(json.dumps(rows, indent=1))
    (RESULTS / "fullsize.md").write_text(table(rows))


if __name__ == "__main__":
    main()
