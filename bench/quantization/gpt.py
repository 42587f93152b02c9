"""A character-level GPT on tiny Shakespeare, and the same weights as one step with a cache of keys and values."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.quantization.contest import CACHE, contest, float_file, floating, ours, times, write
from bench.quantization.fit import fit
from bench.quantization.references import onnxruntime_blocks
from tersor.exporting.artefact import Session
from tersor.exporting.export import open_artefact
from tersor.loading.inputs import map_tensors, to_numpy
from tersor.quantization.hardware import weight_only
from tersor.quantization.recipe import Recipe

TEXT = Path(
    os.environ.get("TINYSHAKESPEARE", Path(__file__).parents[2].parent / "shared/data/tinyshakespeare.txt")
)

#: Of the network: wide enough for memory to bound a step, as in the models that weights alone in integers are for.
WIDTH = 768


def codes() -> tuple[np.ndarray, np.ndarray, int]:
    """Return the training text and the validation text as integers, and how many kinds of characters there are."""
    text = TEXT.read_text()
    kinds = {character: code for code, character in enumerate(sorted(set(text)))}
    everything = np.array([kinds[character] for character in text])
    cut = int(0.9 * len(everything))
    return everything[:cut], everything[cut:], len(kinds)


class Block(nn.Module):
    """Attention and a perceptron, each after a norm and added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def heads_of(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream after the block; `x` is (batch, tokens, width)."""
        q, k, v = (self.heads_of(part) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.after(x, mixed)

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Logits of the next character at every position."""

    def __init__(self, kinds: int, width: int = WIDTH, depth: int = 4, context: int = 128) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(kinds, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, width // 64) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, kinds)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Step(nn.Module):
    """One character further: takes keys and values of the characters before, returns logits and its own.

    The caller writes the second output into its cache, which has a fixed length, so that no step copies the cache.
    """

    def __init__(self, gpt: GPT) -> None:
        super().__init__()
        self.gpt = gpt

    def forward(self, token: Tensor, position: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (batch, kinds) and keys and values (batch, 2 depth, width).

        Args:
            token: the character, (batch, 1).
            position: how many are before it, (batch, 1).
            cache: keys and values of those, (batch, 2 depth, context, width); what lies behind them is not read.
        """
        gpt = self.gpt
        hidden = torch.arange(cache.shape[2]) >= position[:, :, None, None]
        x, own = gpt.token(token) + gpt.place(position), []
        for i, block in enumerate(gpt.blocks):
            q, k, v = block.qkv(block.norm1(x)).chunk(3, -1)
            own += [k, v]
            q, k, v = (block.heads_of(part) for part in (q, k, v))
            keys, values = block.heads_of(cache[:, 2 * i]), block.heads_of(cache[:, 2 * i + 1])
            past = (q @ keys.transpose(-1, -2)).masked_fill(hidden, -1e9)
            scores = torch.cat([past, (q * k).sum(-1, keepdim=True)], -1) * q.shape[-1] ** -0.5
            share = torch.softmax(scores, -1)
            x = block.after(x, share[..., :-1] @ values + share[..., -1:] * v)
        return gpt.head(gpt.norm(x))[:, 0], torch.cat(own, 1)


def trained(steps: int = 400, width: int = WIDTH) -> GPT:
    """Return the network with weights from the cache, trained first if there are none: some minutes."""
    train, _, kinds = codes()
    gpt, file = GPT(kinds, width), CACHE / f"gpt_{width}_{steps}.safetensors"
    if file.exists():
        gpt.load_state_dict(load_file(file))
        return gpt.eval()
    torch.manual_seed(0)
    losses = (_loss(gpt, tokens) for tokens in crops(train, gpt.place.num_embeddings + 1, 10))
    fit(gpt, losses, steps=steps, optimizer="adamw", lr=1e-3, clip=1.0, weight_decay=0.1, beta2=0.99)
    CACHE.mkdir(exist_ok=True)
    save_file(gpt.state_dict(), file)
    return gpt.eval()


def _loss(gpt: GPT, tokens: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return F.cross_entropy(gpt(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def crops(text: np.ndarray, length: int, batch: int, seed: int = 0) -> Iterator[Tensor]:
    """Give random pieces of `text` without end."""
    generator = np.random.default_rng(seed)
    while True:
        starts = generator.integers(0, len(text) - length, batch)
        yield torch.from_numpy(np.stack([text[start : start + length] for start in starts]))


TITLE = f"""## A character-level GPT on tiny Shakespeare, weights alone in integers

One step at batch 1 with 64 characters before it; width {WIDTH}, 4 blocks, cache of fixed length. One thread. Latency:
processor time, every contender once a round, medians over rounds. Loss: of the file itself, stepping through pieces of
the validation text, in nats a character; the increase with the normal 95 per cent interval of paired characters.
SQNR: logits. Speed: against the fastest floating-point file."""


def run(options) -> None:
    train, validation, _ = codes()
    step = Step(trained()).eval()
    calibration = list(walk(step.gpt, next(crops(train, 128, 16)), range(4, 128, 6)))
    pieces = next(crops(validation, 129, 16, seed=1))
    evaluate = lambda session: scores(session, step, pieces)
    example = map_tensors(lambda tensor: tensor[:2], calibration[10])
    call = to_numpy(map_tensors(lambda tensor: tensor[:1], calibration[10]))
    small = lambda scheme, runtime="onnxruntime", recipe=DEFAULT: ours(
        step, example, calibration, runtime, scheme=scheme, recipe=recipe
    )
    plain = floating(step, example, "onnxruntime")
    makers = {
        "floating point": plain,
        "floating point, OpenVINO": floating(step, example, "openvino"),
        "bf16, OpenVINO": floating(step, example, "openvino", precision="bf16"),
        "8 bits, blocks of 128": small(weight_only(8, block=128)),
        "4 bits, blocks of 32, min-max (RTN)": small(weight_only(4), recipe=Recipe("minmax")),
        "4 bits, blocks of 32": small(weight_only(4)),
        "4 bits, blocks of 32, GPTQ": small(weight_only(4), recipe=Recipe("mse", after=("gptq",))),
        "4 bits, blocks of 128": small(weight_only(4, block=128)),
        "4 bits, blocks of 32, OpenVINO": small(weight_only(4), "openvino"),
        **onnxruntime_blocks(float_file("gpt", plain).path),
        "4 bits, blocks of 32, AWQ": small(weight_only(4), recipe=Recipe("mse", before=("awq",))),
        "4 bits, blocks of 32, HQQ": small(weight_only(4, symmetric=False), recipe=Recipe("hqq")),
        "4 bits, blocks of 128, GPTQ": small(
            weight_only(4, block=128), recipe=Recipe("mse", after=("gptq",))
        ),
        "8 bits, blocks of 32, OpenVINO": small(weight_only(8), "openvino"),
    }
    rows = contest("gpt", makers, evaluate, call, options)
    write("gpt", TITLE, rows, "nats", vars(options))
    widths = by_width(options.rounds)
    facts = {**vars(options), "speed of 4 bits in blocks of 128 by width": widths}
    write("gpt", TITLE, rows, "nats", facts)


DEFAULT = Recipe()


def by_width(rounds: int, widths: tuple[int, ...] = (128, 256, 512, 1024)) -> dict[int, float]:
    """Return the speed against floating point in the same runtime, two blocks with random weights."""
    found = {}
    for width in widths:
        torch.manual_seed(0)
        step = Step(GPT(65, width, depth=2)).eval()
        inputs = (torch.zeros(2, 1, dtype=torch.long), torch.full((2, 1), 64), torch.randn(2, 4, 128, width))
        recipe = Recipe("minmax")
        makers = {
            "plain": floating(step, inputs, "onnxruntime"),
            "small": ours(step, inputs, [inputs], scheme=weight_only(4, block=128), recipe=recipe),
        }
        sessions = {
            name: open_artefact(make(CACHE / f"width_{name}.onnx").artefact) for name, make in makers.items()
        }
        medians = times(sessions, to_numpy(map_tensors(lambda tensor: tensor[:1], inputs)), rounds)
        found[width] = round(medians["plain"] / medians["small"], 2)
    return found


@torch.no_grad()
def walk(gpt: GPT, tokens: Tensor, positions: Iterable[int]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Give what the step reads at `positions` of each row of `tokens`; it does not read what lies behind them."""
    kept: list[Tensor] = []
    keep = lambda _module, _inputs, qkv: kept.extend(qkv.chunk(3, -1)[1:])
    handles = [block.qkv.register_forward_hook(keep) for block in gpt.blocks]
    gpt(tokens)
    for handle in handles:
        handle.remove()
    cache = torch.stack(kept, 1)
    for position in positions:
        yield tokens[:, position : position + 1], torch.full((len(tokens), 1), position), cache


def scores(session: Session, step: nn.Module, pieces: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and the logarithm of the probability of each next character."""
    gpt = step.gpt
    batch, length = len(pieces), pieces.shape[1] - 1
    cache = np.zeros((batch, 2 * len(gpt.blocks), length, gpt.place.embedding_dim), np.float32)
    logits = []
    for position in range(length):
        place = np.full((batch, 1), position)
        out, cache[:, :, position] = session([pieces[:, position : position + 1].numpy(), place, cache])
        logits.append(out)
    stacked = torch.from_numpy(np.stack(logits, 1))
    found = -F.cross_entropy(stacked.flatten(0, 1), pieces[:, 1:].flatten(), reduction="none")
    return stacked.numpy(), found.numpy()
