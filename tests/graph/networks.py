"""Small networks, each with one difficulty of structure."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """A basic block, with the shortcut that a change of width needs."""

    def __init__(self, width: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        plain = stride == 1 and width == out
        self.short = (
            nn.Identity() if plain else nn.Sequential(nn.Conv2d(width, out, 1, stride), nn.BatchNorm2d(out))
        )

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.short(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Residual(8, 8), Residual(8, 16, 2), Residual(16, 16))
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class Attention(nn.Module):
    """Queries, keys and values from one matrix, in the layout of ViT."""

    def __init__(self, width: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, self.heads * self.head_dim))


class Block(nn.Module):
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width)
        self.mlp = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Llama(nn.Module):
    """Rotary positions, grouped keys and values, gated feed-forward, tied embedding."""

    def __init__(self, width: int = 32, heads: int = 4, groups: int = 2, dim: int = 8) -> None:
        super().__init__()
        self.heads, self.groups, self.dim = heads, groups, dim
        self.embed = nn.Embedding(40, width)
        self.norm1, self.norm2, self.norm3 = RMSNorm(width), RMSNorm(width), RMSNorm(width)
        self.q, self.o = nn.Linear(width, heads * dim, bias=False), nn.Linear(heads * dim, width, bias=False)
        self.k, self.v = (nn.Linear(width, groups * dim, bias=False) for _ in range(2))
        self.gate, self.up = nn.Linear(width, 48, bias=False), nn.Linear(width, 48, bias=False)
        self.down = nn.Linear(48, width, bias=False)
        self.head = nn.Linear(width, 40, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("inv_freq", 1.0 / 10 ** (torch.arange(0, dim, 2) / dim), persistent=False)

    def attend(self, x):
        b, n, _ = x.shape
        angle = torch.outer(torch.arange(n, dtype=x.dtype), self.inv_freq.to(x.dtype))
        cos, sin = (torch.cat([f, f], -1) for f in (angle.cos(), angle.sin()))
        q = rotate(self.q(x).view(b, n, -1, self.dim).transpose(1, 2), cos, sin)
        k = rotate(self.k(x).view(b, n, -1, self.dim).transpose(1, 2), cos, sin)
        v = self.v(x).view(b, n, -1, self.dim).transpose(1, 2)
        times = self.heads // self.groups
        k, v = (self.repeat(t, times) for t in (k, v))
        mask = torch.full((n, n), -1e9, dtype=x.dtype).triu(1)
        y = (q @ k.transpose(2, 3) / 8**0.5 + mask).softmax(-1) @ v
        return self.o(y.transpose(1, 2).reshape(b, n, -1))

    @staticmethod
    def repeat(x, times):
        b, groups, n, dim = x.shape
        return x[:, :, None].expand(b, groups, times, n, dim).reshape(b, groups * times, n, dim)

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.attend(self.norm1(x))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return {"logits": self.head(self.norm3(x))}


class Sequential(nn.Module):
    """Plain layers with a flatten before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.Flatten(),
            nn.Linear(12 * 64, 20), nn.ReLU(), nn.Linear(20, 5),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


class Mobile(nn.Module):
    """Inverted residual with depthwise convolution and squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.expand, self.bn1 = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depth, self.bn2 = nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.project = nn.Conv2d(24, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = F.hardswish(self.bn2(self.depth(F.hardswish(self.bn1(self.expand(x))))))
        gate = self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))).sigmoid()
        x = x + self.project(y * gate)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Grouped(nn.Module):
    """Grouped convolutions with a shuffle of channels between."""

    def __init__(self, groups: int = 3) -> None:
        super().__init__()
        self.groups = groups
        self.a = nn.Conv2d(3, 12, 1)
        self.b = nn.Conv2d(12, 12, 3, padding=1, groups=groups)
        self.c = nn.Conv2d(12, 12, 3, padding=1, groups=groups)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        x = self.b(F.relu(self.a(x)))
        b, c, h, w = x.shape
        x = x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.fc(F.relu(self.c(x)).mean((2, 3)))


class Dense(nn.Module):
    """Concatenation of all that came before."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        self.c, self.norm = nn.Conv2d(10, 4, 3, padding=1), nn.BatchNorm2d(14)
        self.fc = nn.Linear(28, 5)

    def forward(self, x):
        a = self.a(x)
        b = self.b(F.relu(a))
        c = torch.cat([a, b, self.c(torch.cat([a, b], 1))], 1)
        c = F.relu(self.norm(c)).mean((2, 3))
        return self.fc(torch.cat([c, c], 1))


class Hidden(nn.Module):
    """Sizes held as integers, in a tuple and a dict, and checked."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.parts, self.settings = 12, (3, 4), {"inner": 12}
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, 12)
        self.fc = nn.Linear(12, 2)

    def forward(self, x):
        y = F.relu(self.a(x))
        if y.shape[-1] != self.hidden:
            raise ValueError("wrong width")
        y = self.b(y).view(-1, *self.parts).flatten(1)
        return self.fc(y + torch.zeros(1, self.settings["inner"], dtype=y.dtype))


class Root(nn.Module):
    """A scale by the root of a size that is read from the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.fc = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.fc((q @ k.transpose(1, 2) / math.sqrt(q.size(-1))).softmax(-1) @ v)


class Bert(nn.Module):
    """Post-norm encoder with the head sizes of the reference code."""

    def __init__(self, width: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.head_size, self.all_head_size = heads, width // heads, width
        self.words, self.places = nn.Embedding(30, width), nn.Embedding(16, width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm0, self.norm1, self.norm2 = (nn.LayerNorm(width) for _ in range(3))
        self.inner, self.outer = nn.Linear(width, 40), nn.Linear(40, width)
        self.fc = nn.Linear(width, 3)

    def split(self, x):
        return x.view(*x.size()[:-1], self.heads, self.head_size).permute(0, 2, 1, 3)

    def forward(self, ids):
        x = self.norm0(self.words(ids) + self.places(torch.arange(ids.shape[1])))
        q, k, v = (self.split(layer(x)) for layer in (self.query, self.key, self.value))
        y = (q @ k.transpose(-1, -2) / math.sqrt(self.head_size)).softmax(-1) @ v
        y = y.permute(0, 2, 1, 3).contiguous()
        x = self.norm1(x + self.out(y.view(*y.size()[:-2], self.all_head_size)))
        x = self.norm2(x + self.outer(F.gelu(self.inner(x))))
        return self.fc(x[:, 0])


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 8, 2, bidirectional=True, batch_first=True)
        self.cell = nn.GRUCell(16, 6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        y, _ = self.rnn(x)
        state = None
        for step in y.unbind(1):
            state = self.cell(step, state)
        return self.fc(state)


def image(size: int = 16) -> tuple:
    return (torch.randn(2, 3, size, size),)


def words() -> tuple:
    return (torch.randint(0, 30, (2, 7)),)


#: Name: (factory, inputs, largest share of parameters left when every group is halved).
NETWORKS = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)),
        lambda: (torch.randn(2, 6),),
        0.6,
    ),
    "plain convolutions": (Sequential, image, 0.4),
    "residual": (ResNet, image, 0.3),
    "inverted residual": (Mobile, image, 0.4),
    "grouped with shuffle": (Grouped, lambda: image(8), 0.6),
    "dense concatenation": (Dense, lambda: image(8), 0.4),
    "vision transformer": (ViT, image, 0.35),
    "llama": (Llama, words, 0.45),
    "bert": (Bert, words, 0.5),
    "sizes as integers": (Hidden, lambda: (torch.randn(2, 6),), 0.7),
    "root of a size": (Root, lambda: (torch.randn(2, 4, 6),), 0.9),
    "recurrent": (Recurrent, lambda: (torch.randn(2, 4, 5),), 0.5),
    "transformer encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2),
        lambda: (torch.randn(2, 5, 16),),
        0.8,
    ),
}
