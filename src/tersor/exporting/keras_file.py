"""Write a network that came from Keras, smaller and trained further, as a `.keras` file again."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from tersor.errors import ExportError, TersorError
from tersor.loading.inputs import main_output
from tersor.loading.keras.convert import LAYERS
from tersor.loading.keras.flow import Ref
from tersor.loading.keras.opening import keras_on_torch
from tersor.loading.keras.origin import ORIGIN, Call, Origin
from tersor.loading.pieces import Reshape
from tersor.loading.references import first_line

#: Largest difference of outputs, relative to the largest output (at least 1).
_TOLERANCE = 1e-5
_SAMPLES, _OPEN = 4, 32


def export_keras(model: nn.Module, path: str | Path) -> Path:
    """Write `model` as a `.keras` file that stock Keras opens with any backend.

    The layers of the Keras model that it came from are made again with the sizes that the network has now, and get
    its weights. The file is a functional model, whatever the original was, and needs no class of its own.

    Args:
        model: a module that `load_model` made of a Keras model, pruned and trained since or not.
        path: ends in `.keras`; an existing file is replaced as a whole.

    Returns:
        The path.

    Raises:
        ExportError: if the module did not come from Keras, holds what Keras cannot (integers, factorized layers), or
            the file answers differently from the module.

    Example:
        `tersor.export_keras(result.model, "smaller.keras")`
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise ExportError(f"A Keras file ends in '.keras', got {path.name!r}.")
    origin = model.meta.get(ORIGIN) if isinstance(model, fx.GraphModule) else None
    if not isinstance(origin, Origin):
        raise ExportError(
            f"The {type(model).__name__} did not come from a Keras model as floating point, so there is no Keras model "
            "to write it as. Start from a `.keras` file or a Keras model, and do not quantize it; else export to ONNX."
        )
    keras = keras_on_torch(origin.name)
    made = _Replay(keras, model, origin).model()
    _check(model, made, origin)
    with tempfile.TemporaryDirectory(prefix=".tersor-", dir=path.absolute().parent) as folder:
        written = Path(folder) / path.name
        made.save(written)
        written.replace(path)
    return path


def back_to_keras(model: nn.Module | None, folder: Path) -> dict[str, Path]:
    """Return `model.keras`, written into `folder`, for a network that came from Keras and fits into it; else nothing.

    Integers and factorized layers do not fit, so a network with them has its other files only.
    """
    if not isinstance(model, fx.GraphModule) or ORIGIN not in model.meta:
        return {}
    try:
        return {"model.keras": export_keras(model, folder / "model.keras")}
    except ExportError:
        return {}


class _Replay:
    """Calls the layers of the original again, in their new sizes."""

    def __init__(self, keras: Any, model: nn.Module, origin: Origin) -> None:
        self.keras, self.origin = keras, origin
        self.modules = dict(model.named_modules())
        self.layers: dict[str, Any] = {}
        self.tensors: dict[int, Any] = {}

    def model(self) -> Any:
        """Return the Keras model."""
        origin, keras = self.origin, self.keras
        for name, number, value in origin.inputs:
            self.tensors[number] = keras.Input(
                batch_shape=(None, *value.shape[1:]), dtype=value.dtype, name=name
            )
        inputs = [self.tensors[number] for _, number, _ in origin.inputs]
        for call in origin.calls:
            try:
                self._call(call)
            except TersorError:
                raise
            except Exception as cause:  # Keras raises whatever a layer does not like
                raise ExportError(
                    f"Keras cannot make the layer {call.path!r} as it is now: {first_line(cause)}"
                ) from cause
        made = keras.Model(
            inputs if len(inputs) > 1 else inputs[0], self._given(origin.outputs), name=origin.name
        )
        for path, layer in self.layers.items():
            self._fill(path, layer)
        return made

    def _call(self, call: Call) -> None:
        if call.path not in self.layers:
            # Without its build_config a layer is built by its first call, in the new sizes.
            config = {key: value for key, value in call.config.items() if key != "build_config"}
            config["config"] = {**call.config["config"], **self._changed(call)}
            self.layers[call.path] = self.keras.saving.deserialize_keras_object(config)
        named = {k: v for k, v in call.named.items() if not k.endswith("mask")}
        made = self.layers[call.path](*self._given(call.arguments), **self._given(named))
        for number, tensor in zip(call.outputs, self.keras.tree.flatten(made), strict=True):
            self.tensors[number] = tensor

    def _changed(self, call: Call) -> dict[str, object]:
        """Return the entries of a layer's configuration that are new, its name included."""
        kind = str(call.config["class_name"])
        modules = self._modules(call)
        changed: dict[str, object] = {"name": call.path.replace(".", "_")}
        if kind in LAYERS and call.modules:
            rule = LAYERS[kind]
            if rule.weights is None:
                raise ExportError(
                    f"The layer {call.path!r} is a {kind}, whose weights tersor does not write back to Keras. "
                    "Export the network as ONNX instead."
                )
            changed |= rule.sizes(modules)
        if kind == "Reshape" and "newshape" in call.config["config"]:
            shape = modules[""]
            assert isinstance(shape, Reshape)
            changed["newshape"] = (-1, *shape.shape)
        return changed

    def _modules(self, call: Call) -> dict[str, nn.Module]:
        found = {end: self.modules.get(call.path + end) for end, _ in call.modules}
        for end, kind in call.modules:
            now = type(found[end]).__name__
            if now != kind:
                raise ExportError(
                    f"The layer {call.path + end!r} was a {kind} and is a {now} now, which has no place in the Keras "
                    "model. Export the network as ONNX instead."
                )
        return {end: module for end, module in found.items() if module is not None}

    def _fill(self, path: str, layer: Any) -> None:
        call = next(c for c in self.origin.calls if c.path == path)
        rule = LAYERS.get(str(call.config["class_name"]))
        if rule is None or rule.weights is None or not call.modules:
            return
        values = rule.weights(self._modules(call))
        for variable in layer.weights:
            if variable.name in values:
                variable.assign(values[variable.name].detach().cpu().numpy())

    def _given(self, arguments: Any) -> Any:
        swap = lambda value: self.tensors[value.number] if isinstance(value, Ref) else value
        return self.keras.tree.map_structure(swap, arguments)


def _check(model: nn.Module, made: Any, origin: Origin) -> None:
    arrays = [_random(made, number, shape.shape, shape.dtype) for _, number, shape in origin.inputs]
    with torch.no_grad():
        wanted = main_output(model(*map(torch.from_numpy, arrays)))
        found = main_output(_plain(made(arrays if len(arrays) > 1 else arrays[0], training=False)))
    difference = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1.0))
    if not difference <= _TOLERANCE:
        raise ExportError(
            f"The Keras model answers differently from the module, by {difference:.1e} of its largest output (allowed "
            f"is {_TOLERANCE:.0e}); nothing was written. Export the network as ONNX instead."
        )


def _plain(outputs: Any) -> Any:
    return tuple(outputs) if isinstance(outputs, list) else outputs


def _random(made: Any, seed: int, shape: tuple[int | None, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size = (_SAMPLES, *(n or _OPEN for n in shape[1:]))
    tables = [layer.input_dim for layer in made.layers if type(layer).__name__ == "Embedding"]
    if tables or dtype.startswith("int"):
        return rng.integers(0, min(tables, default=2), size).astype(np.int64)
    return rng.standard_normal(size).astype(np.float32)
