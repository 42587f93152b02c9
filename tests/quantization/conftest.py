"""Small networks with every structure that integer kernels exist for, and a way to run a file."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tersor.exporting.integers import OPSET, lower, pack, translations


class Residual(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.short = nn.Conv2d(inputs, outputs, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.norm(self.first(x)))
        return self.relu(self.second(y) + self.short(x))


class ConvNet(nn.Module):
    """Stem, max pool, residual block, depthwise block with ReLU6, global average pool, classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block = Residual(8, 16)
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU6()
        )
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.block(F.max_pool2d(self.stem(x), 2))
        return self.head(self.depthwise(x).mean((2, 3)))


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4)
        )

    def forward(self, x):
        return self.layers(x)


class Attention(nn.Module):
    """One transformer encoder layer over (batch, tokens, features), called with keywords, giving a mapping."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head, self.heads = nn.Linear(width, 5), heads

    def forward(self, tokens, scale=None):
        b, n, w = tokens.shape
        q, k, v = (
            self.qkv(self.norm1(tokens)).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, w)
        x = tokens + self.out(mixed)
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return {"logits": self.head(x[:, 0])}


def settle(model):
    """Give batch norms statistics and biases that differ from the defaults."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


@pytest.fixture
def conv_net():
    torch.manual_seed(0)
    return settle(ConvNet())


@pytest.fixture
def perceptron():
    torch.manual_seed(0)
    return settle(Perceptron())


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return Attention().eval()


@pytest.fixture
def images():
    return torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def rows():
    return torch.randn(64, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def tokens():
    return torch.randn(16, 7, 32, generator=torch.Generator().manual_seed(1))


def decibels(reference, other):
    reference, other = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    return 10 * np.log10((reference**2).sum() / max(((reference - other) ** 2).sum(), 1e-30))


@pytest.fixture
def db():
    return decibels


class File:
    """A lowered model as an ONNX file: run it with the real kernels or as its nodes say."""

    def __init__(self, model, inputs, path):
        module, self.path = lower(model), str(path)
        named = isinstance(inputs, dict)
        free = {0: torch.export.Dim.DYNAMIC}
        shapes = dict.fromkeys(inputs, free) if named else tuple(free for _ in inputs)
        program = torch.onnx.export(
            module, () if named else inputs, kwargs=inputs if named else None, dynamo=True, verbose=False,
            custom_translation_table=translations(), opset_version=OPSET, dynamic_shapes=shapes,
        )  # fmt: skip
        pack(program)
        program.save(self.path)

    def run(self, *arrays, kernels=True, entries=()):
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        options.optimized_model_filepath = self.path + ".optimized"
        for key, value in entries:
            options.add_session_config_entry(key, value)
        if not kernels:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]
        return session.run(None, {n: np.asarray(a) for n, a in zip(names, arrays, strict=True)})[0]

    def operators(self, optimized=True):
        graph = onnx.load(self.path + (".optimized" if optimized else "")).graph
        return [node.op_type for node in graph.node]

    def initializers(self):
        return {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(self.path).graph.initializer}


@pytest.fixture
def as_file(tmp_path):
    return lambda model, inputs: File(model, inputs, tmp_path / "model.onnx")
