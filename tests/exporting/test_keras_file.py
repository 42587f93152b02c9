"""Networks that came from Keras go back as `.keras` files that answer as the module does."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import ExportError

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)

from tersor.exporting.keras_file import back_to_keras, export_keras  # noqa: E402 - after the backend is chosen
from tersor.loading.keras.opening import from_keras, read_keras  # noqa: E402 - likewise
from tersor.search.verbs import factorize, prune  # noqa: E402 - likewise

layers = keras.layers


def image():
    return keras.Sequential(
        [
            layers.Input((12, 12, 3)),
            layers.Conv2D(8, 3, padding="same", strides=2, activation="relu", use_bias=False),
            layers.BatchNormalization(scale=False),
            layers.SeparableConv2D(8, 3, padding="same"),
            layers.DepthwiseConv2D(3),
            layers.Flatten(),
            layers.Dense(16, activation="gelu"),
            layers.LayerNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.top = layers.Dense(16, activation="relu"), layers.Dense(1, activation="sigmoid")

    def call(self, x):
        h = self.hidden(x)
        return self.top(keras.ops.concatenate([h, 2.0 * x[:, :2]], axis=-1))


def subclassed():
    model = Subclassed()
    model(np.zeros((2, 6), np.float32))
    return model


def text():
    tokens = keras.Input((7,), dtype="int32")
    x = layers.Embedding(20, 12)(tokens)
    x = layers.Add()([x, layers.Conv1D(12, 3, padding="same", activation="relu")(x)])
    return keras.Model(tokens, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))


CASES = {
    "image": (image, torch.randn(2, 12, 12, 3)),
    "subclassed": (subclassed, torch.randn(2, 6)),
    "text": (text, torch.randint(0, 20, (2, 7))),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ratio", [0.0, 0.4])
def test_a_pruned_network_comes_back_smaller_and_answers_alike(name, ratio, tmp_path):
    make, inputs = CASES[name]
    original = make()
    module = from_keras(original)
    if ratio:
        module = prune(module, inputs, ratio=ratio).model
    path = export_keras(module, tmp_path / "small.keras")
    again = keras.saving.load_model(path)
    torch.testing.assert_close(again(inputs, training=False), module(inputs), rtol=1e-4, atol=1e-5)
    assert (again.count_params() < original.count_params()) == bool(ratio)
    torch.testing.assert_close(read_keras(path)(inputs), module(inputs), rtol=1e-4, atol=1e-5)


def test_what_keras_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ExportError, match="did not come from a Keras model"):
        export_keras(nn.Linear(1, 1), tmp_path / "a.keras")
    with pytest.raises(ExportError, match=r"ends in '\.keras'"):
        export_keras(nn.Linear(1, 1), tmp_path / "a.onnx")
    wide = keras.Sequential([layers.Input((64,)), layers.Dense(64, name="wide"), layers.Dense(2)])
    wide.layers[0].kernel.assign(np.outer(np.arange(64), np.ones(64)) / 64)
    thin = factorize(from_keras(wide), torch.randn(2, 64), energy=0.99).model
    with pytest.raises(ExportError, match="'wide' was a Linear and is a"):
        export_keras(thin, tmp_path / "a.keras")
    recurrent = keras.Sequential([layers.Input((5, 3)), layers.LSTM(4, name="memory"), layers.Dense(2)])
    with pytest.raises(ExportError, match="'memory' is a LSTM, whose weights"):
        export_keras(from_keras(recurrent), tmp_path / "a.keras")
    assert not list(tmp_path.iterdir())


def test_a_file_that_would_answer_differently_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("tersor.exporting.keras_file._Replay._fill", lambda *_: None)
    with pytest.raises(ExportError, match="answers differently from the module"):
        export_keras(from_keras(image()), tmp_path / "a.keras")
    assert not list(tmp_path.iterdir())


def test_a_folder_gets_a_keras_file_only_where_one_is_possible(tmp_path):
    made = back_to_keras(from_keras(image()), tmp_path)
    assert made == {"model.keras": tmp_path / "model.keras"}
    assert made["model.keras"].is_file()
    recurrent = keras.Sequential([layers.Input((5, 3)), layers.LSTM(4), layers.Dense(2)])
    for other in (None, nn.Linear(1, 1), from_keras(recurrent)):
        assert back_to_keras(other, tmp_path) == {}
