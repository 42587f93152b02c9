"""Keras models become torch modules that answer alike; files that would run code are refused before Keras sees them."""

import copy
import json
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import ArgumentError, ModelError
from tersor.loading.build import build_task
from tersor.loading.keras.flow import identifier
from tersor.loading.keras.opening import from_keras, is_keras_model, read_keras
from tersor.loading.model import load_model
from tersor.loading.padding import flat, padded, same

NET = """
import keras

class Wide(keras.layers.Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.units, self.inner = units, keras.layers.Dense(units)

    def call(self, x, training=False):
        return keras.activations.gelu(self.inner(x)) + 1.0

    def get_config(self):
        return {**super().get_config(), "units": self.units}

class MLP(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.hidden = keras.layers.Dense(16, activation="relu")
        self.wide = Wide(16)
        self.top = keras.layers.Dense(1, activation="sigmoid")

    def call(self, x):
        h = self.hidden(x)
        h = keras.ops.concatenate([2.0 * self.wide(h) - h, h[:, :2]], axis=-1)
        return self.top(keras.ops.reshape(h, (-1, 18)))
"""


@pytest.fixture(scope="module")
def keras():
    import os

    os.environ.setdefault("KERAS_BACKEND", "torch")
    found = pytest.importorskip("keras")
    if found.backend.backend() != "torch":
        pytest.skip("Keras runs on another backend here")
    return found


def classic(k):
    layers = k.layers
    return k.Sequential(
        [
            layers.Input((9, 9, 3)),
            layers.Conv2D(4, 3, padding="same", strides=2, activation="relu"),
            layers.BatchNormalization(scale=False),
            layers.MaxPooling2D(2, padding="same"),
            layers.Dropout(0.1),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def separable(k):
    layers = k.layers
    return k.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.SeparableConv2D(8, 3, padding="same", strides=2),
            layers.DepthwiseConv2D(4, padding="same", depth_multiplier=2),
            layers.AveragePooling2D(2, padding="same"),
            layers.ZeroPadding2D(1),
            layers.Cropping2D(((1, 0), (0, 1))),
            layers.UpSampling2D(2, interpolation="bilinear"),
            layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
            layers.GroupNormalization(5),
            layers.PReLU(shared_axes=[1, 2]),
            layers.MaxPooling2D(3, 1, padding="same"),
            layers.GlobalAveragePooling2D(keepdims=True),
            layers.Reshape((5,)),
            layers.LeakyReLU(),
            layers.Dense(2, use_bias=False),
        ]
    )


def sequence(k):
    layers = k.layers
    return k.Sequential(
        [
            layers.Input((20, 3)),
            layers.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="gelu"),
            layers.LayerNormalization(),
            layers.MaxPooling1D(2),
            layers.LSTM(6, return_sequences=True),
            layers.Bidirectional(layers.GRU(5)),
            layers.RepeatVector(3),
            layers.Permute((2, 1)),
            layers.Flatten(),
            layers.ReLU(max_value=6),
            layers.Dense(2, activation="hard_silu"),
        ]
    )


def transformer(k):
    layers = k.layers
    tokens = k.Input((12,), dtype="int32")
    x = layers.Embedding(50, 16)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 4)(x, x))
    y = layers.Dense(16)(layers.Dense(32, activation="gelu")(x))
    x = layers.LayerNormalization()(layers.Average()([x, y]))
    return k.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def nested(k):
    layers = k.layers
    inner = k.Sequential([layers.Input((6, 6, 4)), layers.Conv2D(4, 3, padding="same"), layers.ReLU()])
    image = k.Input((6, 6, 4))
    x = layers.Add()([inner(image), inner(inner(image))])
    x = layers.Concatenate()([x, image]) * layers.GlobalMaxPooling2D(keepdims=True)(
        layers.Concatenate(axis=-1)([x, image])
    )
    return k.Model(image, k.ops.mean(x, axis=(1, 2)))


def named(k):
    layers = k.layers
    a, b = k.Input((8,), name="a"), k.Input((8, 8, 1), name="b")
    x = layers.Concatenate()([a, layers.Flatten()(layers.Conv2D(4, 3)(layers.Rescaling(1 / 255.0)(b)))])
    return k.Model({"a": a, "b": b}, {"logits": layers.Dense(2)(x), "other": layers.Dense(1)(x)})


def weights_of_its_own(k):
    class Scale(k.layers.Layer):
        def build(self, shape):
            self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")

        def call(self, x):
            return x * self.gamma

    image = k.Input((5, 5, 2))
    x = Scale()(k.layers.Conv2D(3, 3)(image))
    return k.Model(image, k.ops.mean(k.ops.relu(x), axis=(1, 2)))


ZOO = (classic, separable, sequence, transformer, nested, named, weights_of_its_own)


def randomized(keras, model):
    """Give every variable a random value, so that no part of the comparison is trivial."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "seed" not in variable.name:
            positive = "variance" in variable.name
            value = rng.standard_normal(variable.shape) * 0.3
            variable.assign(abs(value) + 0.1 if positive else value)
    return model


@pytest.mark.parametrize("make", ZOO, ids=lambda f: f.__name__)
def test_a_model_answers_as_in_keras_with_an_independent_comparison(keras, make):
    model = randomized(keras, make(keras))
    module = from_keras(model)
    rng = np.random.default_rng(1)
    inputs = [
        rng.integers(0, 50, (3, *t.shape[1:])) if "int" in t.dtype else rng.standard_normal((3, *t.shape[1:]))
        for t in model.inputs
    ]
    inputs = [torch.tensor(x, dtype=torch.int64 if x.dtype.kind == "i" else torch.float32) for x in inputs]
    given = dict(zip(("a", "b"), inputs, strict=True)) if make is named else inputs[0]
    wanted, found = model(given, training=False), module(*inputs)
    wanted, found = (wanted["other"], found["other"]) if make is named else (wanted, found)
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-4, atol=1e-5)
    assert not any(type(m).__module__.startswith("keras") for m in module.modules())


def test_an_image_is_turned_once_however_deep_the_network(keras):
    layers = keras.layers
    stack = [layers.Input((8, 8, 3))]
    for _ in range(3):
        stack += [layers.Conv2D(4, 3, padding="same"), layers.BatchNormalization(), layers.Activation("relu")]
    module = from_keras(keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(2)]))
    assert sum(node.target is torch.permute for node in module.graph.nodes) == 1


def test_a_subclassed_binary_classifier_goes_from_file_to_task(keras, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    model = load_object(tmp_path, "MLP")()
    x = np.random.default_rng(0).standard_normal((600, 4)).astype(np.float32)
    model.compile("sgd", "binary_crossentropy")
    model.fit(x, (x[:, 0] > 0).astype(np.float32), verbose=0)
    model.save(tmp_path / "model.keras")
    module = load_model(
        tmp_path / "model.keras",
        arguments={"custom_objects": f"{tmp_path}/net.py:MLP,{tmp_path}/net.py:Wide"},
    )
    torch.testing.assert_close(module(torch.tensor(x)), model(torch.tensor(x)), rtol=1e-4, atol=1e-5)
    built = build_task(module, (x, (x[:, 0] > 0).astype(np.int64)))
    assert built.task.kind == "classification"
    assert built.task.metric.name == "accuracy"
    assert any("binary accuracy" in line for line in built.notes.words())
    assert any("bce on probabilities" in line for line in built.notes.words())


def load_object(folder, name):
    from tersor.loading.references import load_object as load

    return load(f"{folder}/net.py:{name}", ModelError)


def test_a_model_object_and_a_function_that_makes_one_are_taken(keras, tmp_path):
    model = classic(keras)
    assert is_keras_model(model)
    assert not is_keras_model(nn.Linear(1, 1))
    for given in (model, lambda: model):
        assert isinstance(load_model(given), torch.fx.GraphModule)


def test_the_converted_module_copies_and_is_smaller_after_pruning(keras):
    from tersor.search.verbs import prune

    module = from_keras(randomized(keras, classic(keras)))
    inputs = torch.randn(2, 9, 9, 3)
    small, plan = prune(copy.deepcopy(module), inputs, ratio=0.4)
    assert plan.edits
    assert small(inputs).shape == (2, 3)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in module.parameters())


def test_a_layer_without_counterpart_is_named(keras):
    layers = keras.layers
    model = keras.Sequential([layers.Input((4, 4, 1)), layers.RandomFlip(name="flip"), layers.Flatten()])
    with pytest.raises(ModelError, match=r"'flip' is a RandomFlip.*Converted are .*Conv2D"):
        from_keras(model)
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2, activation="glu", name="odd")])
    with pytest.raises(ModelError, match="'odd' cannot be converted: the activation 'glu'"):
        from_keras(model)


def test_masked_positions_are_left_out_of_means_and_refused_elsewhere(keras):
    layers = keras.layers
    front = lambda: [layers.Input((6,), dtype="int32"), layers.Embedding(5, 3, mask_zero=True)]
    model = randomized(keras, keras.Sequential([*front(), layers.GlobalAveragePooling1D(), layers.Dense(2)]))
    tokens = torch.tensor([[1, 2, 0, 0, 0, 0], [3, 3, 3, 1, 2, 4]])
    torch.testing.assert_close(from_keras(model)(tokens), model(tokens).detach())
    with pytest.raises(ModelError, match="'recurrent' cannot be converted: it skips masked positions"):
        from_keras(keras.Sequential([*front(), layers.LSTM(3, name="recurrent")]))


def test_a_conversion_that_answers_differently_is_refused(keras, monkeypatch):
    from tersor.loading.keras.activations import ACTIVATIONS

    monkeypatch.setitem(ACTIVATIONS, "softmax", lambda axis: nn.LogSoftmax(axis))
    with pytest.raises(ModelError, match=r"answers differently, by \d.*allowed is 1e-05"):
        from_keras(randomized(keras, classic(keras)))


def test_an_unbuilt_model_is_refused_with_what_to_do(keras, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    with pytest.raises(ModelError, match="Call it once on a batch"):
        from_keras(load_object(tmp_path, "MLP")())


def archive(path, config, extra=()):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        file.writestr("model.weights.h5", b"\x89HDF\r\n")
        for name in extra:
            file.writestr(name, "x")
    return path


def of_layer(module, kind, **config):
    layer = {"module": module, "class_name": kind, "config": config, "registered_name": None}
    return {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}}


HOSTILE = {
    "another package": (of_layer("os", "system"), "'system' of os"),
    "a helper of Keras": (of_layer("keras.utils", "get_file"), "'get_file' of keras.utils"),
    "a lambda": (of_layer("keras.layers", "Lambda", function="code"), "Python code"),
    "a lambda inside": (of_layer("keras.layers", "Dense", x=[{"class_name": "__lambda__"}]), "Python code"),
    "a saved graph": (of_layer("keras.layers", "TFSMLayer", filepath="/x"), "holds a TFSMLayer layer"),
    "a file reader": (of_layer("keras.layers", "StringLookup", vocabulary="/etc/passwd"), "StringLookup"),
    "a class of its own": (of_layer("mine", "Net"), "custom_objects=file.py:Net"),
    "no mapping": ("[]", "is no mapping"),
    "no JSON": ("{", "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_asks_for_code_is_refused_before_keras_is_imported(name, tmp_path, monkeypatch):
    config, words = HOSTILE[name]
    monkeypatch.setattr(
        "tersor.loading.keras.opening.keras_on_torch", lambda _: pytest.fail("Keras was imported")
    )
    with pytest.raises(ModelError, match=words):
        read_keras(archive(tmp_path / "m.keras", config))


def test_odd_entries_and_bombs_are_refused(tmp_path):
    with pytest.raises(ModelError, match="is no Keras 3 model file"):
        read_keras(archive(tmp_path / "a.keras", {}, extra=("run.py",)))
    with pytest.raises(ModelError, match="points outside the archive"):
        read_keras(archive(tmp_path / "b.keras", {}, extra=("../x",)))
    bomb = tmp_path / "c.keras"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", "0" * 80_000_000)
    with pytest.raises(ModelError, match="decompression bomb"):
        read_keras(bomb)
    with pytest.raises(ModelError, match="There is no Keras file"):
        read_keras(tmp_path / "none.keras")


def test_unknown_arguments_of_a_file_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="'custom_objects' only, got units"):
        load_model(tmp_path / "m.keras", arguments={"units": 3})


def test_padding_same_agrees_with_its_definition():
    for size in range(1, 12):
        for kernel in range(1, 5):
            for stride in range(1, 4):
                ((before, after),) = same((size,), (kernel,), (stride,), (1,))
                out = (size + before + after - kernel) // stride + 1
                assert out == -(-size // stride)
                assert after - before in (0, 1) or before == 0 == after
    with pytest.raises(ModelError, match="fixed input size"):
        same((None,), (3,), (2,), (1,))
    assert padded([(1, 1), (0, 0)]) == ((1, 0), {})
    assert flat([(1, 2), (3, 4)]) == (3, 4, 1, 2)
    assert identifier("1/a.b") == "_1_a_b"


def test_a_keras_model_is_bound_as_it_is(keras):
    x = np.random.default_rng(0).standard_normal((700, 9, 9, 3)).astype(np.float32)
    task, _ = build_task(classic(keras), (x, np.arange(700) % 3))
    assert isinstance(task.model, torch.fx.GraphModule)
    assert task.kind == "classification"


def test_the_items_of_a_keras_data_set_are_batches(keras):
    class Pieces(keras.utils.PyDataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            x = np.random.default_rng(index).standard_normal((45, 4)).astype(np.float32)
            return x, (x[:, 0] > 0).astype(np.int64)

    task, _ = build_task(nn.Linear(4, 2), Pieces())
    assert sum(map(len, (task.train, task.search, task.certification))) == 900


def test_an_old_file_is_opened_only_on_the_users_word(keras, tmp_path):
    model, path = classic(keras), tmp_path / "m.h5"
    model.save(path)
    with pytest.raises(ModelError, match=r"save it as \.keras, or pass --allow-code-execution"):
        load_model(path)
    x = torch.randn(2, 9, 9, 3)
    found = load_model(path, allow_code_execution=True)
    torch.testing.assert_close(found(x), model(x, training=False).detach(), rtol=1e-4, atol=1e-5)
