"""What pays on an NVIDIA GPU, in torch alone: half precision, torch.compile, 2:4 sparsity, int8 weights.

    python -m bench.gpu [--minutes 25]

Unattended, no network, random weights: it is about time, not accuracy. Each way runs in turns with the same network
in single precision (TensorFloat-32 off), as a CUDA graph, timed with CUDA events. Writes `bench/results/gpu.json` and
`.md` after every row. Needs torch >= 2.10 and a GPU; without one it says so and ends.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from tersor.measurement.cuda import compare_on_gpu, cuda_missing, graphed

RESULTS = Path(__file__).parents[1] / "results"


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.first(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.out(mixed.reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


def transformer() -> nn.Module:
    return nn.Sequential(*(Block(1024, 16) for _ in range(8)))


def convnet() -> nn.Module:
    widths = (3, 64, 128, 256, 512, 512)
    layers = [
        nn.Sequential(nn.Conv2d(i, o, 3, 2 if i > 3 else 1, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        for i, o in pairwise(widths)
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


#: Network -> (how it is built, shapes of the inputs).
NETWORKS = {
    "transformer, 8 blocks of 1024": (transformer, [(1, 128, 1024), (32, 128, 1024)]),
    "convolutions up to 512": (convnet, [(1, 3, 112, 112), (64, 3, 112, 112)]),
}


class Int8Linear(nn.Module):
    """Weights in 8 bits with a scale for each row; multiplied in the type of the input."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("codes", (linear.weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale.squeeze(1))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.linear(x, self.codes.to(x.dtype)) * self.scale
        return y if self.bias is None else y + self.bias


def replaced(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    """Return `model` with every linear layer replaced."""
    for name, child in model.named_children():
        setattr(model, name, make(child) if isinstance(child, nn.Linear) else replaced(child, make))
    return model


def sparse(linear: nn.Linear) -> nn.Module:
    """Return the layer with two of four weights in a row zero, stored as the tensor cores take them."""
    from torch.sparse import to_sparse_semi_structured

    weight = linear.weight.detach().view(linear.out_features, -1, 4)
    mask = torch.zeros_like(weight).scatter_(2, weight.abs().topk(2, dim=2).indices, 1.0)
    pruned = (weight * mask).view_as(linear.weight)
    linear.weight = nn.Parameter(to_sparse_semi_structured(pruned), requires_grad=False)
    return linear


#: Way -> what it makes of the network; all get their input in the type of their parameters.
WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "half precision (fp16)": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "fp16, channels last": lambda model: model.half().to(memory_format=torch.channels_last),
    "torch.compile": lambda model: torch.compile(model),
    "fp16 + torch.compile": lambda model: torch.compile(model.half()),
    "fp16, 2:4 sparse linear layers": lambda model: replaced(model.half(), sparse),
    "fp16, int8 weights + torch.compile": lambda model: torch.compile(replaced(model.half(), Int8Linear)),
}


def row(build: Callable[[], nn.Module], shape: tuple[int, ...], way: str) -> dict[str, object]:
    """Return how a way compares with single precision, or why it does not run."""
    torch.manual_seed(0)
    base = build().eval().cuda()
    x = torch.randn(*shape, device="cuda")
    try:
        with torch.no_grad():
            changed = WAYS[way](copy.deepcopy(base))
            y = x.to(next((b.dtype for b in changed.parameters() if b.is_floating_point()), x.dtype))
            if "channels last" in way and y.ndim == 4:
                y = y.contiguous(memory_format=torch.channels_last)
            changed(y)
            found = compare_on_gpu(graphed(lambda: base(x)), graphed(lambda: changed(y)))
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    speed = found.speedup
    return {
        "base_s": found.base_s,
        "median_s": found.candidate_s,
        "speedup": [speed.low, speed.median, speed.high],
    }


def page(result: dict) -> str:
    lines = [
        "# What pays on an NVIDIA GPU",
        "",
        f"`python -m bench.gpu` on {result['device']}, torch {result['torch']}. Random weights; in turns with the same "
        "network in single precision, CUDA graphs, CUDA events; 95% intervals over 30 pairs of blocks.",
        "",
        "| network | input | way | speed-up | ms |",
        "|---|---|---|---|---|",
    ]
    for entry in result["rows"]:
        shape = "x".join(map(str, entry["shape"]))
        if "failed" in entry:
            outcome = f"{entry['failed'].replace('|', '/')} | "
        else:
            low, middle, high = entry["speedup"]
            outcome = f"{middle:.2f} ({low:.2f} to {high:.2f}) | {entry['median_s'] * 1e3:.3f}"
        lines.append(f"| {entry['network']} | {shape} | {entry['way']} | {outcome} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=25.0)
    end = time.monotonic() + 60 * parser.parse_args().minutes
    if cuda_missing():
        print(f"skipped: {cuda_missing()}")
        return 0
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    result = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": []}
    for network, (build, shapes) in NETWORKS.items():
        for shape, way in ((shape, way) for shape in shapes for way in WAYS):
            if time.monotonic() > end:
                print("The time is up.")
                return 0
            found = row(build, shape, way)
            result["rows"].append({"network": network, "shape": shape, "way": way, **found})
            print(result["rows"][-1], flush=True)
            torch.compiler.reset()
            (RESULTS / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")
            (RESULTS / "gpu.md").write_text(page(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
