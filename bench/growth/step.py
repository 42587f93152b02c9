"""One step on one network in a fresh process: `python -m bench.growth.step STEP WIDTH BLOCKS` prints JSON."""

import json
import resource
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Steps that need the weights; the others run on the meta device, where a network of any size takes no memory.
NEEDS_WEIGHTS = {"prune", "quantize"}
TOKENS, VOCABULARY, HEAD = 16, 256, 64


class Block(nn.Module):
    """A pre-norm transformer block with 12 width^2 weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        mixed = nn.functional.scaled_dot_product_attention(
            self.split(self.q(y)), self.split(self.k(y)), self.split(self.v(y)), is_causal=True
        )
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


def network(width: int, blocks: int) -> nn.Module:
    return nn.Sequential(
        nn.Embedding(VOCABULARY, width),
        *(Block(width) for _ in range(blocks)),
        nn.LayerNorm(width),
        nn.Linear(width, VOCABULARY),
    )


def trace(model: nn.Module, tokens: Tensor) -> dict[str, int]:
    from tersor.graph.trace import trace as take

    groups = take(model, (tokens,)).groups
    return {"groups": len(groups), "prunable": sum(group.prunable for group in groups)}


def prune(model: nn.Module, tokens: Tensor) -> dict[str, int]:
    from tersor.search.verbs import prune as cut

    small = cut(model, (tokens,), ratio=0.3).model
    return {"parameters_after": sum(p.numel() for p in small.parameters())}


def quantize(model: nn.Module, tokens: Tensor) -> dict[str, int]:
    from tersor.quantization.quantize import quantize as make_integers

    make_integers(model, (tokens,), [(tokens,)], scheme="static")
    return {}


STEPS: dict[str, Callable[[nn.Module, Tensor], dict[str, int]]] = {
    "trace": trace,
    "prune": prune,
    "quantize": quantize,
}


def main(name: str, width: int, blocks: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.device("cpu" if name in NEEDS_WEIGHTS else "meta"):
        model = network(width, blocks).eval()
        tokens = torch.zeros(2, TOKENS, dtype=torch.long)
    STEPS[name](network(HEAD, 1).eval(), torch.zeros(2, TOKENS, dtype=torch.long))  # imports and caches
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    busy, start = time.process_time(), time.perf_counter()
    found = STEPS[name](model, tokens)
    numbers = {
        "step": name,
        "width": width,
        "blocks": blocks,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": time.perf_counter() - start,
        "processor_s": time.process_time() - busy,
        "extra_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **found,
    }
    print(json.dumps(numbers))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
