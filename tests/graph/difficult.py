"""Networks that break pruners: layouts of attention, odd joins, literal sizes, states, and tricks of Python."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint


class Net(nn.Module):
    """A module from layers by name and a forward function."""

    def __init__(self, forward, **layers) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *args):
        return self.run(self, *args)


def net(forward, **layers):
    return lambda: Net(forward, **{name: make() for name, make in layers.items()})


def linear(width, out, **options):
    return lambda: nn.Linear(width, out, **options)


def conv(width, out, kernel=1, **options):
    return lambda: nn.Conv2d(width, out, kernel, padding=kernel // 2, **options)


def value(number):
    return lambda: number


def tokens(width=12, count=6):
    return lambda: (torch.randn(2, count, width),)


def pixels(size=8):
    return lambda: (torch.randn(2, 3, size, size),)


def heads(x, count):
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def attend(q, k, v):
    return ((q @ k.transpose(-2, -1)) * 0.3).softmax(-1) @ v


def joined(x):
    return x.transpose(1, 2).flatten(2)


def nested_joins(m, x):
    a, b = m.a(x).split([m.left, 8 - m.left], 1)
    y = torch.cat([b, a.relu(), b.sigmoid()], 1)
    return m.fc(m.b(y).mean((2, 3)))


def decoder(m, x):
    y = m.fc(x).view(x.shape[0], -1, 4, 4)
    return m.out(F.relu(m.up(y)))


def pixel_shuffle(m, x):
    return m.b(F.pixel_shuffle(m.a(x), 2)).mean((2, 3))


def pixel_unshuffle(m, x):
    return m.fc(m.b(F.pixel_unshuffle(m.a(x), 2)).mean((2, 3)))


def cross_stage(m, x):
    y = list(m.a(x).chunk(2, 1))
    y.append(y[-1] + m.b(F.silu(y[-1])))
    return m.fc(m.c(torch.cat(y, 1)).mean((2, 3)))


def layer_scale(m, x):
    x = m.a(x)
    return m.fc(x + m.gamma * m.c(F.gelu(m.b(x))))


def shared(m, x):
    x = m.a(x)
    for _ in range(3):
        x = x + m.c(F.relu(m.b(x)))
    return m.fc(x)


def neox(m, x):
    qkv = m.qkv(x).view(*x.shape[:2], m.heads, 3 * m.dim).transpose(1, 2)
    q, k, v = qkv.chunk(3, -1)
    return m.fc(joined(attend(q, k, v)))


def chunked(m, x):
    q, k, v = (heads(t, m.heads) for t in m.qkv(x).chunk(3, -1))
    return m.fc(joined(attend(q, k, v)))


def multi_query(m, x):
    q, k, v = m.qkv(x).split([m.heads * m.dim, m.dim, m.dim], -1)
    q = q.view(*x.shape[:2], m.heads, m.dim).transpose(1, 2)
    return m.fc(joined(attend(q, k[:, None], v[:, None])))


def interleaved_rope(m, x):
    def turn(t):
        even, odd = t[..., ::2], t[..., 1::2]
        return torch.stack([even * m.cos - odd * m.sin, even * m.sin + odd * m.cos], -1).flatten(-2)

    q, k, v = (heads(layer(x), m.heads) for layer in (m.q, m.k, m.v))
    return m.fc(joined(attend(turn(q), turn(k), v)))


def complex_rope(m, x):
    def turn(t):
        pairs = torch.view_as_complex(t.float().reshape(*t.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones(2), torch.ones(2))).flatten(-2).to(t)

    q, k, v = (heads(layer(x), m.heads) for layer in (m.q, m.k, m.v))
    return m.fc(joined(attend(turn(q), turn(k), v)))


def partial_rope(m, x):
    def turn(t):
        spun, rest = t[..., : m.spun], t[..., m.spun :]
        half = m.spun // 2
        return torch.cat([torch.cat([-spun[..., half:], spun[..., :half]], -1), rest], -1)

    q, k, v = (heads(layer(x), m.heads) for layer in (m.q, m.k, m.v))
    return m.fc(joined(attend(turn(q), turn(k), v)))


def alibi(m, x):
    q, k, v = (heads(layer(x), m.heads) for layer in (m.q, m.k, m.v))
    bias = m.slopes[:, None, None] * torch.arange(x.shape[1]).to(x)
    return m.fc(joined((q @ k.transpose(-2, -1) + bias).softmax(-1) @ v))


def relative_bias(m, x):
    q, k, v = (heads(layer(x), m.heads) for layer in (m.q, m.k, m.v))
    place = torch.arange(x.shape[1])
    bias = m.table[place[:, None] - place[None] + 5].permute(2, 0, 1)
    return m.fc(joined((q @ k.transpose(-2, -1) + bias).softmax(-1) @ v))


def normed_heads(m, x):
    q, k, v = (heads(layer(x), m.heads) for layer in (m.q, m.k, m.v))
    return m.fc(joined(attend(m.nq(q), m.nk(k), v)))


def talking_heads(m, x):
    q, k, v = (heads(layer(x), m.heads) for layer in (m.q, m.k, m.v))
    scores = m.talk((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1)).softmax(2).permute(0, 3, 1, 2)
    return m.fc(joined(scores @ v))


def einsum_attention(m, x):
    q, k, v = (layer(x).view(*x.shape[:2], m.heads, -1) for layer in (m.q, m.k, m.v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
    return m.fc(torch.einsum("bhqk,bkhd->bqhd", scores, v).flatten(2))


def linear_attention(m, x):
    q, k, v = (heads(layer(x), m.heads) for layer in (m.q, m.k, m.v))
    q, k = F.elu(q) + 1, F.elu(k) + 1
    top = q @ (k.transpose(-2, -1) @ v)
    return m.fc(joined(top / (q * k.sum(2, keepdim=True)).sum(-1, keepdim=True)))


def default_scale(m, x):
    q, k, v = (heads(layer(x), m.heads) for layer in (m.q, m.k, m.v))
    return m.fc(joined(F.scaled_dot_product_attention(q, k, v)))


def given_scale(m, x):
    q, k, v = (heads(layer(x), m.heads) for layer in (m.q, m.k, m.v))
    return m.fc(joined(F.scaled_dot_product_attention(q, k, v, scale=0.5)))


def windows(m, x):
    x = m.a(x).permute(0, 2, 3, 1)
    b, h, w, c = x.shape
    x = (
        torch.roll(x, (-1, -1), (1, 2))
        .view(b, h // 2, 2, w // 2, 2, c)
        .permute(0, 1, 3, 2, 4, 5)
        .reshape(-1, 4, c)
    )
    q, k, v = m.qkv(x).reshape(-1, 4, 3, m.heads, c // m.heads).permute(2, 0, 3, 1, 4).unbind(0)
    x = (
        m.o(joined(attend(q, k, v)))
        .view(b, h // 2, w // 2, 2, 2, c)
        .permute(0, 1, 3, 2, 4, 5)
        .reshape(b, h, w, c)
    )
    parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return m.fc(m.merge(torch.cat(parts, -1)).mean((1, 2)))


def experts(m, x):
    gate = m.router(x).softmax(-1)
    y = torch.einsum("btw,ewh->beth", x, m.up).relu()
    return m.fc(torch.einsum("beth,ehw,bte->btw", y, m.down, gate))


def routed(m, x):
    flat = m.a(x).flatten(0, 1)
    best = m.router(flat).argmax(-1)
    y = torch.zeros_like(flat)
    for i, expert in enumerate(m.experts):
        rows = (best == i).nonzero()[:, 0]
        if len(rows):
            y.index_add_(0, rows, expert(flat[rows]))
    return m.fc(flat + y)


def group_norm(m, x):
    return m.fc(F.relu(m.norm(m.a(x))).mean((2, 3)))


def response_norm(m, x):
    y = F.gelu(m.a(x))
    strength = y.norm(2, (2, 3), keepdim=True)
    return m.fc((y + m.gamma * y * strength / (strength.mean(1, keepdim=True) + 1e-6)).mean((2, 3)))


def standardized(m, x):
    w = m.b.weight
    w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
    return m.fc(F.conv2d(F.relu(m.a(x)), w).mean((2, 3)))


def literal_slice(m, x):
    y = m.a(x)
    return m.fc(torch.cat([y[:, :, :4], y[:, :, 4:].tanh()], -1))


def literal_view(m, x):
    y = m.a(x)
    return m.fc(y.view(x.shape[0], x.shape[1], 4, 3).transpose(2, 3).reshape(x.shape[0], x.shape[1], 12))


@dataclass
class Settings:
    heads: int = 4
    dim: int = 3


def settings(m, x):
    shape = (*x.shape[:2], m.settings.heads, m.settings.dim)
    q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (m.q, m.k, m.v))
    return m.fc(joined(attend(q, k, v)))


def probed(m, x):
    x = m.a(x)
    y, _ = m.attention(m.probe.expand(x.shape[0], -1, -1), x, x, need_weights=False)
    return m.fc(F.relu(m.b(m.norm(y))))


def numpy_root(m, x):
    q, k, v = (layer(x).view(*x.shape[:2], m.heads, m.dim).transpose(1, 2) for layer in (m.q, m.k, m.v))
    return m.fc(joined((q @ k.transpose(-2, -1) / np.sqrt(m.dim)).softmax(-1) @ v))


def grouped_queries(m, x):
    q = m.q(x).view(2, -1, m.heads, m.dim).transpose(1, 2)
    k, v = (layer(x).view(2, -1, m.shared, m.dim).transpose(1, 2) for layer in (m.k, m.v))
    y = F.scaled_dot_product_attention(q, k, v, scale=0.3, enable_gqa=True)
    return m.fc(y.transpose(1, 2).reshape(2, -1, m.heads * m.dim))


def root_of_attribute(m, x):
    q, k, v = (layer(x).view(*x.shape[:2], m.heads, m.dim).transpose(1, 2) for layer in (m.q, m.k, m.v))
    return m.fc(joined((q @ k.transpose(-2, -1) / math.sqrt(m.dim)).softmax(-1) @ v))


def written(m, x):
    y = m.a(x)
    out = torch.zeros(*y.shape[:2], 2 * m.width, dtype=x.dtype)
    out[..., : m.width] = y
    out[..., m.width :] = m.b(y).relu()
    out += 1
    return m.fc(out)


class Cached(nn.Module):
    """Makes its bias in the first pass, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc, self.bias = nn.Linear(12, 8), nn.Linear(8, 3), nn.Parameter(torch.randn(8, 5))
        self.cache = {}

    def forward(self, x):
        if "bias" not in self.cache:
            self.cache["bias"] = self.bias[:, torch.tensor([0, 2, 4])].sum(1)
        return self.fc(self.a(x) + self.cache["bias"])


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x.relu()

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def own_function(m, x):
    return m.fc(Doubled.apply(m.a(x)))


def spectrum(m, x):
    return m.fc(torch.fft.fft2(m.a(x)).real + m.b(x))


def checkpointed(m, x):
    return m.fc(checkpoint(lambda t: m.b(F.relu(m.a(t))), x, use_reentrant=False))


def parameter_list(m, x):
    for weight in m.weights:
        x = F.relu(x @ weight)
    return {"logits": m.fc(x), "past_key_values": x}


def two_inputs(m, x, y):
    return m.fc(m.a(x) * m.b(y).sigmoid()), m.out(m.a(x))


def unet(m, x):
    a = F.relu(m.a(x))
    b = F.relu(m.b(F.max_pool2d(a, 2)))
    return m.out(torch.cat([a, F.interpolate(b, scale_factor=2, mode="nearest")], 1))


def scan(m, x):
    y = m.conv(m.a(x).transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)
    gate, state, steps = F.silu(y), torch.zeros(x.shape[0], y.shape[2], m.states, dtype=x.dtype), []
    decay = torch.exp(-torch.exp(m.log))
    write, read = m.bc(y).split([m.states, m.states], -1)
    for i in range(x.shape[1]):
        state = state * decay + gate[:, i, :, None] * write[:, i, None]
        steps.append((state * read[:, i, None]).sum(-1))
    return m.fc(torch.stack(steps, 1))


def recurrent(m, x):
    y, _ = m.gru(m.rnn(x)[0])
    return m.fc(m.projected(y)[0][:, -1])


def last_dim_conv(m, x):
    return m.fc(F.glu(m.b(F.pad(m.a(x.transpose(1, 2)), (2, 0))), 1).mean(-1))


def unfolded(m, x):
    y = F.unfold(m.a(x), 3, padding=1)
    return m.fc(y.mean(-1))


def learned(*shape):
    return lambda: nn.Parameter(torch.randn(*shape))


QKV = {"q": linear(12, 12), "k": linear(12, 12), "v": linear(12, 12), "fc": linear(12, 3), "heads": value(4)}


def with_buffers(factory, **buffers):
    def make():
        model = factory()
        for name, tensor in buffers.items():
            model.register_buffer(name, tensor)
        return model

    return make


def channels_last():
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return nn.Sequential(layers, nn.Linear(6, 2)).to(memory_format=torch.channels_last)


def scripted():
    return nn.Sequential(
        nn.Linear(12, 8), torch.jit.script(nn.Sequential(nn.ReLU(), nn.Linear(8, 8))), nn.Linear(8, 2)
    )


def spectral():
    layer = parametrizations.spectral_norm(nn.Linear(12, 8))
    return nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 3))


#: Name: (factory, inputs, the fewest groups that can be cut).
DIFFICULT = {
    "nested joins": (net(nested_joins, a=conv(3, 8), b=conv(13, 6), fc=linear(6, 3), left=value(3)), pixels(), 3),
    "linear to transposed convolution": (
        net(decoder, fc=linear(5, 96), up=lambda: nn.ConvTranspose2d(6, 8, 2, 2), out=conv(8, 1)),
        lambda: (torch.randn(2, 5),),
        2,
    ),
    "grouped transposed convolution": (
        net(decoder, fc=linear(5, 96), up=lambda: nn.ConvTranspose2d(6, 8, 2, 2, groups=2), out=conv(8, 1)),
        lambda: (torch.randn(2, 5),),
        2,
    ),
    "depthwise with a multiplier": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 2, 1)), pixels(), 1,
    ),
    "pixel shuffle": (net(pixel_shuffle, a=conv(3, 16), b=conv(4, 3)), pixels(), 1),
    "pixel unshuffle": (net(pixel_unshuffle, a=conv(3, 4), b=conv(16, 6), fc=linear(6, 3)), pixels(), 2),
    "cross stage": (net(cross_stage, a=conv(3, 8), b=conv(4, 4, 3), c=conv(12, 6), fc=linear(6, 3)), pixels(), 2),
    "layer scale": (
        net(layer_scale, a=linear(12, 8), b=linear(8, 16), c=linear(16, 8), gamma=learned(8), fc=linear(8, 3)), tokens(), 2,
    ),
    "a layer used three times": (net(shared, a=linear(12, 8), b=linear(8, 16), c=linear(16, 8), fc=linear(8, 3)), tokens(), 2),
    "attention, heads before parts": (net(neox, qkv=linear(12, 36), fc=linear(12, 3), heads=value(4), dim=value(3)), tokens(), 1),
    "attention, chunked": (net(chunked, qkv=linear(12, 36), fc=linear(12, 3), heads=value(4)), tokens(), 1),
    "attention, one key": (
        net(multi_query, qkv=linear(12, 18), fc=linear(12, 3), heads=value(4), dim=value(3)), tokens(), 1,
    ),
    "rotary positions, interleaved": (
        with_buffers(net(interleaved_rope, **QKV | {"heads": value(2)}), cos=torch.rand(3), sin=torch.rand(3)), tokens(), 2,
    ),
    "rotary positions, complex": (
        net(complex_rope, **QKV | {"heads": value(3)}), tokens(), 1,
    ),
    "rotary positions, partial": (net(partial_rope, **QKV | {"heads": value(2), "spun": value(4)}), tokens(), 2),
    "attention, slopes": (net(alibi, slopes=learned(4), **QKV), tokens(), 2),
    "attention, relative table": (net(relative_bias, table=learned(11, 4), **QKV), tokens(), 2),
    "attention, normed heads": (
        net(normed_heads, nq=lambda: nn.LayerNorm(3), nk=lambda: nn.LayerNorm(3), **QKV), tokens(), 2,
    ),
    "attention, talking heads": (net(talking_heads, talk=linear(4, 4), **QKV), tokens(), 2),
    "attention, einsum": (net(einsum_attention, **QKV), tokens(), 2),
    "attention, linear": (net(linear_attention, **QKV), tokens(), 2),
    "attention, default scale": (net(default_scale, **QKV), tokens(), 1),
    "attention, given scale": (net(given_scale, **QKV), tokens(), 2),
    "attention, settings in a data class": (net(settings, settings=Settings, **QKV), tokens(), 2),
    "attention, root of an attribute": (net(root_of_attribute, dim=value(3), **QKV), tokens(), 1),
    "attention, root taken by numpy": (net(numpy_root, dim=value(3), **QKV), tokens(), 1),
    "attention, queries in groups": (
        net(grouped_queries, heads=value(4), shared=value(2), dim=value(3), q=linear(12, 12), k=linear(12, 6),
            v=linear(12, 6), fc=linear(12, 3)),
        tokens(), 2,
    ),
    "attention of a probe": (
        net(probed, a=linear(12, 8), attention=lambda: nn.MultiheadAttention(8, 2, batch_first=True),
            probe=learned(1, 1, 8), norm=lambda: nn.LayerNorm(8), b=linear(8, 6), fc=linear(6, 3)),
        tokens(), 2,
    ),
    "shifted windows and merging": (
        net(windows, a=conv(3, 12), qkv=linear(12, 36), o=linear(12, 12), merge=linear(48, 8), fc=linear(8, 3), heads=value(3)),
        pixels(), 2,
    ),
    "experts, dense": (
        net(experts, router=linear(12, 4), up=learned(4, 12, 8), down=learned(4, 8, 12), fc=linear(12, 3)), tokens(), 1,
    ),
    "experts, routed": (
        net(routed, a=linear(12, 8), router=linear(8, 5), fc=linear(8, 3),
            experts=lambda: nn.ModuleList(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 8)) for _ in range(5))),
        tokens(), 2,
    ),
    "group norm": (net(group_norm, a=conv(3, 12), norm=lambda: nn.GroupNorm(3, 12), fc=linear(12, 3)), pixels(), 1),
    "instance norm": (
        net(group_norm, a=conv(3, 12), norm=lambda: nn.InstanceNorm2d(12, affine=True), fc=linear(12, 3)), pixels(), 1,
    ),
    "response norm": (net(response_norm, a=conv(3, 12), gamma=learned(1, 12, 1, 1), fc=linear(12, 3)), pixels(), 1),
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(12, 8)), nn.ReLU(), nn.Linear(8, 3)), tokens(), 1,
    ),
    "spectral norm": (spectral, tokens(), 0),
    "standardized weights": (net(standardized, a=conv(3, 8), b=conv(8, 6), fc=linear(6, 3)), pixels(), 2),
    "literal slice": (net(literal_slice, a=linear(12, 8), fc=linear(8, 3)), tokens(), 1),
    "literal view": (net(literal_view, a=linear(12, 12), fc=linear(12, 3)), tokens(), 0),
    "written in place": (
        net(written, a=linear(12, 8), b=linear(8, 8), fc=linear(16, 3), width=value(8)), tokens(), 2,
    ),
    "a cache made in the first pass": (Cached, tokens(), 1),
    "a function with its own gradient": (net(own_function, a=linear(12, 8), fc=linear(8, 3)), tokens(), 1),
    "a spectrum over channels": (net(spectrum, a=linear(12, 8), b=linear(12, 8), fc=linear(8, 3)), tokens(), 0),
    "checkpointed": (net(checkpointed, a=linear(12, 8), b=linear(8, 6), fc=linear(6, 3)), tokens(), 2),
    "a list of parameters": (
        net(parameter_list, fc=linear(8, 3), weights=lambda: nn.ParameterList([torch.randn(12, 10), torch.randn(10, 8)])),
        tokens(), 2,
    ),
    "two inputs, two outputs": (
        net(two_inputs, a=linear(12, 8), b=linear(12, 8), fc=linear(8, 3), out=linear(8, 2)),
        lambda: (torch.randn(2, 12), torch.randn(2, 12)), 1,
    ),
    "U-net": (net(unet, a=conv(3, 6, 3), b=conv(6, 8, 3), out=conv(14, 1)), pixels(), 2),
    "state space": (
        net(scan, a=linear(12, 8), conv=lambda: nn.Conv1d(8, 8, 3, padding=2, groups=8), bc=linear(8, 8), log=learned(8, 4),
            fc=linear(8, 3), states=value(4)),
        tokens(), 1,
    ),
    "recurrent layers in a row": (
        net(recurrent, rnn=lambda: nn.RNN(12, 8, batch_first=True), gru=lambda: nn.GRU(8, 6, batch_first=True),
            projected=lambda: nn.LSTM(6, 8, batch_first=True, proj_size=4), fc=linear(4, 3)),
        tokens(), 2,
    ),
    "causal convolution with a gate": (
        net(last_dim_conv, a=lambda: nn.Conv1d(12, 6, 1), b=lambda: nn.Conv1d(6, 16, 3), fc=linear(8, 3)), tokens(), 2,
    ),
    "unfolded patches": (net(unfolded, a=conv(3, 6), fc=linear(54, 3)), pixels(), 1),
    "channels last": (channels_last, pixels(), 2),
    "a scripted part": (scripted, tokens(), 0),
}  # fmt: skip
