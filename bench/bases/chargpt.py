"""A small GPT over characters and its data, tiny Shakespeare, as `tersor train` takes them.

    tersor train bench/bases/chargpt.py:build --data bench/bases/chargpt.py:splits --metric perplexity -o out

The text is taken from the environment variable SHAKESPEARE, or ../shared/data/tinyshakespeare.txt beside the
repository.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

FILE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "tinyshakespeare.txt"
#: Characters per sample.
BLOCK = 64


class Block(nn.Module):
    """Causal attention and a feed-forward layer, each after a norm and added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = (
            _written_out(q, k, v)
            if self.training
            else F.scaled_dot_product_attention(q, k, v, is_causal=True)
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def _written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the same attention: on a processor a step in bfloat16 takes 0.6 of the time of the fused kernel."""
    later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(1)
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return torch.softmax(scores.masked_fill(later, float("-inf")), -1) @ v


class CharGPT(nn.Module):
    """A decoder over 65 characters (Karpathy, nanoGPT: its settings for a laptop are 4 layers of width 128)."""

    def __init__(self, layers: int = 4, width: int = 128, heads: int = 4, block: int = BLOCK) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(65, width), nn.Embedding(block, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 65, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def build() -> CharGPT:
    """Return the network, untrained."""
    return CharGPT()


def text() -> tuple[Tensor, Tensor]:
    """Return the numbers of the characters: of the first 90% of the text, and of the rest."""
    characters = Path(os.environ.get("SHAKESPEARE", FILE)).read_text()
    numbers = {character: index for index, character in enumerate(sorted(set(characters)))}
    codes = torch.tensor([numbers[character] for character in characters])
    border = len(codes) * 9 // 10
    return codes[:border], codes[border:]


def windows(block: int) -> tuple[Tensor, Tensor]:
    """Return windows of `block` + 1 character numbers: of the first 90% of the text, overlapping, and of the rest."""
    known, held_out = text()
    return known.unfold(0, block + 1, block // 2), held_out.unfold(0, block + 1, block)


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return inputs and the characters that follow them."""
    train, rest = (w.contiguous().numpy() for w in windows(BLOCK))
    return {
        name: (part[:, :-1], part[:, 1:])
        for name, part in (("train", train), ("search", rest[::2]), ("certification", rest[1::2]))
    }
