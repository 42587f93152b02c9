"""Small networks with their groups written by hand."""

import torch
from torch import Tensor, nn

from tersor.graph.groups import Group, Member


def member(
    tensor: str, axis: int, size: int, *, each: int = 1, start: int = 0, length: int | None = None
) -> Member:
    """Units of `each` neighbouring indices, from `start`, on an axis of `length`."""
    owned = [-1] * start + [unit for unit in range(size) for _ in range(each)]
    return Member(tensor, axis, tuple(owned + [-1] * ((length or len(owned)) - len(owned))))


def normalized(name: str, size: int) -> list[Member]:
    return [member(f"{name}.{part}", 0, size) for part in ("weight", "bias", "running_mean", "running_var")]


class Residual(nn.Module):
    """A stem, one residual block with a hidden width, and a head."""

    def __init__(self, width: int = 6, hidden: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, hidden, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(hidden, width, 3, padding=1)
        self.short = nn.Conv2d(width, width, 1, stride=2, bias=False)
        self.fc = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        return self.fc(torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.short(x)).mean((2, 3)))


def residual_groups(width: int = 6, hidden: int = 5) -> list[Group]:
    inner = [
        member("conv1.weight", 0, hidden),
        member("conv1.bias", 0, hidden),
        member("conv2.weight", 1, hidden),
    ]
    stem = [member("stem.weight", 0, width), *normalized("norm", width)]
    stem += [member("conv1.weight", 1, width), member("short.weight", 1, width)]
    out = [member("conv2.weight", 0, width), member("conv2.bias", 0, width), member("short.weight", 0, width)]
    out += [member("fc.weight", 1, width)]
    return [
        Group("conv1", "channels", hidden, tuple(inner)),
        Group("stem", "channels", width, tuple(stem)),
        Group("conv2", "residual", width, tuple(out)),
    ]


class Attention(nn.Module):
    """Self-attention with its projections written by hand: no layer class, (in, out) weights for two of them."""

    def __init__(self, width: int = 8, heads: int = 2, features: int = 3) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * features
        self.q, self.k = (nn.Parameter(torch.randn(width, inner)) for _ in range(2))
        self.v = nn.Linear(width, inner)
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = split(x @ self.q), split(x @ self.k), split(self.v(x))
        mixed = torch.softmax(q @ k.mT, -1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))


def attention_groups(heads: int = 2, features: int = 3) -> list[Group]:
    at = [("q", 1), ("k", 1), ("v.weight", 0), ("v.bias", 0), ("out.weight", 1)]
    whole = tuple(member(name, axis, heads, each=features) for name, axis in at)
    inner = tuple(Member(name, axis, tuple(range(features)) * heads) for name, axis in at[2:])
    return [Group("heads", "heads", heads, whole), Group("value features", "head features", features, inner)]
