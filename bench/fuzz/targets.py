"""What is fuzzed: for each format a valid file, and the loader that is to read or refuse whatever it is changed to."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.torch
import torch
from onnx import TensorProto, helper

from tersor.loading.data import load_data
from tersor.loading.model import load_model
from tersor.loading.weights import read_weights

Reader = Callable[[Path], Any]


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.zeros((40, 2)), y=np.arange(40) % 2)
    return stream.getvalue()


def _torch(old: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(2, 2)}, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def _parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0, 2.0], "c": [0, 1]}), stream)
    return stream.getvalue()


def _image(kind: str) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (9, 7)).save(stream, kind)
    return stream.getvalue()


def _graph(external: bool = False) -> bytes:
    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 3), np.arange(12, dtype=np.float32))
    if external:
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3], data_location=1)
        for key, value in {"location": "w.bin", "offset": "4", "length": "48"}.items():
            weight.external_data.add(key=key, value=value)
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Reshape", ["r", "s"], ["y"]),
    ]
    shape = helper.make_tensor("s", TensorProto.INT64, (2,), [-1, 3])
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 4])], [value("y", ["n", 3])], [weight, shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(_graph_from(_graph()) if external else model)
    return model.SerializeToString()


def _graph_from(content: bytes) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(content)


def _keras() -> bytes:
    from tersor.loading.keras.opening import keras_on_torch

    keras, file = keras_on_torch("fuzz"), Path("valid.keras")
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, activation="relu")])
    model.save(file)
    content = file.read_bytes()
    file.unlink()
    return content


def _beside(file: Path) -> Any:
    (file.parent / "w.bin").write_bytes(bytes(52))
    return load_model(file)


def _configured(file: Path) -> Any:
    """Put the bytes of `file` as the configuration into an otherwise valid archive."""
    archive = file.with_suffix(".keras")
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("metadata.json", "{}")
        made.writestr("config.json", file.read_bytes())
        made.writestr("model.weights.h5", b"")
    return load_model(archive)


def _folder(file: Path) -> Any:
    return load_model(file.parent)


def _config() -> bytes:
    layer = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3}, "registered_name": None}
    config = {"name": "m", "layers": [layer]}
    model = {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}
    return json.dumps(model).encode()


def _bert() -> bytes:
    content = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8, "num_hidden_layers": 1}
    return json.dumps(content | {"num_attention_heads": 2, "vocab_size": 9, "intermediate_size": 8}).encode()


#: Name of the file -> (a valid content, what reads it).
TARGETS: dict[str, tuple[Callable[[], bytes], Reader]] = {
    "d.npz": (_npz, lambda f: load_data(f"npz:{f}")),
    "w.pt": (_torch, read_weights),
    "o.pt": (lambda: _torch(old=True), read_weights),
    "w.safetensors": (lambda: safetensors.torch.save({"weight": torch.zeros(2, 2)}), read_weights),
    "t.csv": (lambda: b"a,b,c\n1,2,x\n3,4,y\n", lambda f: load_data(f"csv:{f}?target=c")),
    "t.parquet": (_parquet, lambda f: load_data(f"parquet:{f}?target=c")),
    "s.parquet": (
        _parquet,
        lambda f: list(load_data(f"parquet:{f}?target=c&stream=yes")["data"].batches()),  # pyright: ignore[reportAttributeAccessIssue] - a stream
    ),
    "p.png": (lambda: _image("PNG"), lambda f: load_data(f"imagefolder:{f.parent.parent}?size=4")),
    "p.jpg": (lambda: _image("JPEG"), lambda f: load_data(f"imagefolder:{f.parent.parent}?size=4")),
    "p.gif": (lambda: _image("GIF"), lambda f: load_data(f"imagefolder:{f.parent.parent}?size=4")),
    "m.onnx": (_graph, load_model),
    "e.onnx": (lambda: _graph(external=True), _beside),
    "m.keras": (_keras, load_model),
    "keras-config.json": (_config, _configured),
    "config.json": (_bert, _folder),
}
