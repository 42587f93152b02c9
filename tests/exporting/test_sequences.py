"""The length of token sequences stays free, in floating point and in integers."""

import numpy as np
import pytest
import torch
from torch import nn

from tersor.exporting.export import export, open_artefact
from tersor.quantization.capture import capture
from tersor.quantization.quantize import quantize


class Encoder(nn.Module):
    """Embeddings, causal attention, a perceptron and logits at every position."""

    def __init__(self, width=32):
        super().__init__()
        self.embed, self.place = nn.Embedding(17, width), nn.Embedding(64, width)
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.up, self.head = nn.Linear(width, 2 * width), nn.Linear(2 * width, 17)

    def forward(self, tokens):
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        q, k, v = (part[:, None] for part in self.qkv(self.norm(x)).chunk(3, -1))
        x = x + nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]
        return self.head(nn.functional.gelu(self.up(x)))


def tokens(batch, length):
    return torch.randint(0, 17, (batch, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scheme", ["static", "int4"])
def test_a_quantized_file_takes_sequences_of_any_length(scheme, tmp_path):
    torch.manual_seed(0)
    small = quantize(Encoder().eval(), (tokens(4, 9),), [(tokens(16, 12),)], scheme=scheme)
    session = open_artefact(export(small, (tokens(4, 9),), tmp_path / "m.onnx"))
    for batch, length in ((1, 1), (3, 20), (2, 5)):
        x = tokens(batch, length)
        with torch.no_grad():
            expected = small(x).numpy()
        error = np.linalg.norm(session([x.numpy()])[0] - expected) / np.linalg.norm(expected)
        assert error < 0.02


def test_the_captured_graph_takes_sequences_of_any_length():
    model = Encoder().eval()
    graph = capture(model, (tokens(2, 9),))
    torch.testing.assert_close(graph(tokens(3, 30)), model(tokens(3, 30)))
