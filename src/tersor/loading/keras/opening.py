"""Open a Keras model: a `.keras` file, looked at before Keras sees it, or an object; both become torch modules."""

import json
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from tersor._extras import require
from tersor.errors import ModelError
from tersor.loading.archive import check_archive
from tersor.loading.keras.agreement import check_agreement
from tersor.loading.keras.convert import is_leaf, known_layers, to_torch
from tersor.loading.keras.flow import flow_of, model_inputs
from tersor.loading.keras.origin import remember
from tersor.loading.references import first_line, load_object

_ENTRIES = ("metadata.json", "config.json", "model.weights.h5")
#: Packages of Keras whose classes and functions build a network; everything else in a file is refused.
_MODULES = ("keras", "keras.layers", "keras.models", "keras.activations", "keras.initializers")
_MODULES += ("keras.regularizers", "keras.constraints", "keras.ops", "builtins")
#: How Keras writes plain values.
_VALUES = ("__keras_tensor__", "__numpy__", "__tensor__", "__slice__", "__ellipsis__", "__bytes__")
_INNER = ("keras.src.models", "keras.src.layers", "keras.src.ops", "keras.src.activations")


def read_keras(path: str | Path, custom_objects: str | Mapping[str, Any] | None = None) -> nn.Module:
    """Return the network of a `.keras` file as a torch module; no code in the file is run.

    Args:
        path: a file that `model.save("NAME.keras")` wrote with any backend.
        custom_objects: the file's own classes: a mapping of names, or references such as `"net.py:MLP,net.py:Block"`.

    Returns:
        A module with the same weights, checked to answer as the original does.

    Raises:
        ModelError: if the file is damaged or unsafe, names classes that were not given, or does not convert.
        MissingExtraError: if Keras is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no Keras file {str(path)!r} (looked from {str(Path.cwd())!r}).")
    # The names are enough to judge the file, before Keras or the user's code is imported.
    _check_config(_config(path), _names(custom_objects), path.name)
    keras = keras_on_torch(path.name)
    classes = _classes(custom_objects)
    try:
        model = keras.saving.load_model(path, custom_objects=classes, compile=False, safe_mode=True)
    except Exception as cause:  # Keras raises whatever its parts raise
        raise ModelError(f"Keras cannot open {path.name!r}: {first_line(cause)}") from cause
    return from_keras(model)


def read_trusted_keras(path: Path) -> nn.Module:
    """Return the network of an `.h5` file. Keras runs whatever code the file holds; only for files you made.

    Raises:
        ModelError: if Keras cannot open it, or it does not convert.
    """
    if not path.is_file():
        raise ModelError(f"There is no Keras file {str(path)!r} (looked from {str(Path.cwd())!r}).")
    keras = keras_on_torch(path.name)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=False)
    except Exception as cause:  # Keras raises whatever its parts raise
        raise ModelError(f"Keras cannot open {path.name!r}: {first_line(cause)}") from cause
    return from_keras(model)


def is_keras_model(value: object) -> bool:
    """Whether `value` is a Keras model; Keras is not imported to find out."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(value, keras.Model)


def is_keras_data(value: Any) -> bool:
    """Whether `value` is a `keras.utils.PyDataset`, whose items are batches; Keras is not imported to find out."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(value, keras.utils.PyDataset)


def from_keras(model: Any) -> nn.Module:
    """Return a built Keras model as a plain torch module, checked to answer as the original does.

    Sequential, functional and subclassed models are looked through down to the layers that are known. Inputs keep
    the order of axes that they have in Keras. The Keras model is not changed.

    Args:
        model: a Keras model that runs on the torch backend.

    Raises:
        ModelError: naming the layer that has no counterpart, or the difference to the original.
    """
    keras = keras_on_torch(type(model).__name__)
    flow = flow_of(keras, model, is_leaf)
    module = to_torch(flow)
    example = _structure(keras, model)
    check_agreement(flow, module, lambda inputs: model(inputs, training=False), example)
    remember(keras, flow, module)
    return module


def _structure(keras: ModuleType, model: Any) -> Any:
    inputs, _ = model_inputs(keras, model)
    return lambda arrays: keras.tree.pack_sequence_as(inputs, arrays)


def keras_on_torch(what: str) -> ModuleType:
    """Import Keras with its torch backend.

    Raises:
        ModelError: if this process has imported Keras with another backend.
        MissingExtraError: if it is not installed.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    keras = require("keras", extra="keras", purpose=f"The Keras model {what!r}")
    if keras.backend.backend() != "torch":
        raise ModelError(
            f"Keras runs on {keras.backend.backend()!r} in this process, and {what!r} needs its torch backend. Save "
            "the model with model.save('model.keras') and pass the file in a fresh process, or set KERAS_BACKEND=torch."
        )
    return keras


def _names(given: str | Mapping[str, Any] | None) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(part.strip().rpartition(":")[2].rpartition(".")[2] for part in given.split(","))
    return tuple(given or ())


def _classes(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    if not isinstance(given, str):
        return dict(given or {})
    found = [load_object(part.strip(), ModelError) for part in given.split(",")]
    return {cls.__name__: cls for cls in found}


def _config(path: Path) -> dict[str, Any]:
    """Return the configuration in a `.keras` archive, whose entries are checked."""
    entries = check_archive(path, ModelError)
    odd = [name for name in entries if name not in _ENTRIES and not name.startswith("assets/")]
    if odd or "config.json" not in entries:
        raise ModelError(
            f"{path.name!r} is no Keras 3 model file: it holds {', '.join(map(repr, list(entries)[:4]))}. "
            "Save one with model.save('model.keras')."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read("config.json"))
    except Exception as cause:  # damaged archives raise errors of many kinds
        raise ModelError(f"{path.name!r} is damaged: {first_line(cause)}") from cause
    if not isinstance(found, dict):
        raise ModelError(f"{path.name!r} is damaged: its configuration is no mapping.")
    return found


def _check_config(config: dict[str, Any], classes: tuple[str, ...], name: str) -> None:
    """Refuse what a network does not need: code, other packages, layers that cannot be converted anyway.

    Keras has its own guard (safe_mode), which was passed by several times; this one does not depend on it.
    """
    config = {key: value for key, value in config.items() if key != "compile_config"}
    for entry in _objects(config):
        kind, home = str(entry["class_name"]), str(entry.get("module") or "")
        registered = str(entry.get("registered_name") or "")
        if (
            kind in _VALUES
            or kind in classes
            or registered in classes
            or registered.rpartition(">")[2] in classes
        ):
            continue
        if kind == "Lambda" or kind == "__lambda__":
            raise ModelError(
                f"{name!r} holds Python code (a Lambda layer), which is not run. Write it as a layer class with "
                "keras.ops, and name the class with --model-arg custom_objects=file.py:CLASS."
            )
        if home not in _MODULES and not home.startswith(_INNER):
            raise ModelError(
                f"{name!r} is made with the class {kind!r} of {home or 'its author'}, which Keras does not have. Name "
                f"it with --model-arg custom_objects=file.py:{kind} (custom_objects={{...}} in Python)."
            )
        if home == "keras.layers" and kind not in (*known_layers(), "InputLayer"):
            raise ModelError(
                f"{name!r} holds a {kind} layer, which is not converted. Converted are {', '.join(known_layers())}."
            )


def _objects(content: object) -> Iterator[Mapping[str, Any]]:
    """Yield every serialized object of a configuration, at any depth."""
    if isinstance(content, Mapping):
        if "class_name" in content:
            yield content
        content = list(content.values())
    if isinstance(content, list):
        for inner in content:
            yield from _objects(inner)
