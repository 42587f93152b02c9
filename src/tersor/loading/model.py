"""Turn what the user hands over as the model into an `nn.Module`."""

import ast
import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from tersor._extras import require
from tersor.errors import ArgumentError, ModelError
from tersor.loading.keras.opening import from_keras, is_keras_model, read_keras, read_trusted_keras
from tersor.loading.references import first_line, is_entry_point, load_object
from tersor.loading.weights import fit_weights, read_module, read_weights

#: Why a file alone cannot be taken, by suffix. Each sentence says what to pass instead.
_FILES = {
    ".h5": "An .h5 file can run code when it is loaded; save it as .keras, or pass --allow-code-execution if you "
    "made it yourself.",
    ".pt2": "A .pt2 program can run code when it is loaded and is not read as a model; "
    "pass the PyTorch model that it was exported from.",
    ".xml": "An OpenVINO file is a finished graph, which tersor does not read as a model; "
    "pass the PyTorch model that it was exported from.",
    ".pte": "An ExecuTorch file is a finished program, which tersor does not read as a model; "
    "pass the PyTorch model that it was exported from.",
    ".safetensors": "A .safetensors file holds weights without the network; pass file.py:build --weights FILE.",
    ".pt": "A torch file holds weights, or a pickle that runs code; pass file.py:build --weights FILE, or "
    "--allow-code-execution if it is a whole module that you saved yourself.",
    ".pkl": "A pickle runs code when it is loaded and is not read; pass file.py:build with --weights as .safetensors.",
}
_FILES |= dict.fromkeys((".pth", ".ckpt", ".bin"), _FILES[".pt"])
_FILES |= dict.fromkeys((".pickle", ".joblib"), _FILES[".pkl"])
_FILES |= {".hdf5": _FILES[".h5"]}


def load_model(
    reference: object,
    *,
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    allow_code_execution: bool = False,
) -> nn.Module:
    """Return the module that `reference` stands for.

    Args:
        reference: an `nn.Module`, a Keras model, a class or function that makes one, or a string: `module:attribute`,
            `file.py:attribute`, `hf:NAME[@revision]`, `timm:NAME`, the folder of a saved Hugging Face model, or a
            file: `.onnx`, or `.keras` (argument `custom_objects` for its own classes).
        weights: a `.safetensors` file, or a torch file of tensors only, to load into it.
        arguments: keyword arguments of the class or function; strings are read as Python literals where they are.
        allow_code_execution: let weights and hub models run their own code. Only for files you made.

    Returns:
        The module. An `nn.Module` comes back as it is, or as a copy if `weights` are given.

    Raises:
        ModelError: if it does not import, is not a module, cannot be built, or the weights do not fit.
        ArgumentError: if `arguments` are given for something that takes none, or the string has no clear reading.
        MissingExtraError: if a hub reference needs a library that is not installed.

    Example:
        >>> load_model("torch.nn:Linear", arguments={"in_features": "2", "out_features": "1"})
        Linear(in_features=2, out_features=1, bias=True)
    """
    given = {name: _literal(value) for name, value in (arguments or {}).items()}
    if isinstance(reference, str | Path):
        made = _from_string(str(reference), given, allow_code_execution)
    else:
        made = _made(reference, given, _name(reference))
    if weights is None:
        return made
    tensors = read_weights(weights, allow_code_execution=allow_code_execution)
    return fit_weights(copied(made) if made is reference else made, tensors, str(weights))


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy of `model` in the same modes.

    Raises:
        ModelError: if it cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as cause:  # __deepcopy__ and __reduce__ are the user's
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({first_line(cause)}), so it cannot be optimized without "
            "changing it. Keep only parameters, buffers and plain values in its attributes."
        ) from cause


def _from_string(reference: str, arguments: dict[str, Any], allow_code_execution: bool) -> nn.Module:
    prefix, separator, rest = reference.partition(":")
    if separator and prefix in _HUBS:
        return _HUBS[prefix](rest, arguments, allow_code_execution)
    if is_entry_point(reference):
        return _made(load_object(reference, ModelError), arguments, reference)
    path = Path(reference)
    if path.is_dir():
        return _from_folder(path, arguments, allow_code_execution)
    if path.suffix in _READERS:
        return _READERS[path.suffix](path, arguments)
    if allow_code_execution and path.suffix in _TRUSTED:
        return _TRUSTED[path.suffix](path)
    if path.suffix in _FILES:
        raise ModelError(f"{reference!r}: {_FILES[path.suffix]}")
    raise ArgumentError(f"{reference!r} {_READINGS}")


_READINGS = (
    "is not a model reference. Write 'module:function', 'file.py:function', 'hf:NAME[@revision]', 'timm:NAME', "
    "a file .onnx or .keras, or the folder of a saved Hugging Face model (one that holds config.json)."
)


def _literal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _name(reference: object) -> str:
    return reference.__qualname__ if inspect.isclass(reference) else type(reference).__name__


def _made(found: Any, arguments: dict[str, Any], name: str) -> nn.Module:
    if is_keras_model(found):
        return from_keras(found)
    if isinstance(found, nn.Module):
        if arguments:
            raise ArgumentError(
                f"{name!r} is a module already and takes no arguments, got {', '.join(arguments)}."
            )
        return found
    if not callable(found):
        raise ModelError(
            f"{name!r} is {type(found).__name__}, neither an nn.Module nor something that makes one."
        )
    try:
        made = found(**arguments)
    except Exception as cause:  # the user's function may raise anything
        hint = " Pass its arguments with --model-arg name=value." if isinstance(cause, TypeError) else ""
        raise ModelError(f"{name!r} could not build the model: {first_line(cause)}.{hint}") from cause
    if is_keras_model(made):
        return from_keras(made)
    if not isinstance(made, nn.Module):
        raise ModelError(f"{name!r} returned {type(made).__name__}, not an nn.Module.")
    return made


def _from_timm(name: str, arguments: dict[str, Any], _allow_code_execution: bool) -> nn.Module:
    timm = require("timm", extra="timm", purpose=f"The model 'timm:{name}'")
    arguments.setdefault("pretrained", True)
    try:
        return timm.create_model(name, **arguments)
    except Exception as cause:  # network, unknown names and arguments each have their own class
        raise ModelError(f"timm could not make {name!r}: {first_line(cause)}") from cause


def _from_hub(name: str, arguments: dict[str, Any], allow_code_execution: bool) -> nn.Module:
    identity, _, revision = name.partition("@")
    if revision:
        arguments["revision"] = revision
    return _pretrained(identity, arguments, allow_code_execution, local=False)


def _from_folder(folder: Path, arguments: dict[str, Any], allow_code_execution: bool) -> nn.Module:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{str(folder)!r} holds no config.json, so it is not a saved Hugging Face model. "
            "Pass 'file.py:function' with --weights for any other model."
        )
    return _pretrained(str(folder.resolve()), arguments, allow_code_execution, local=True)


def _pretrained(
    identity: str, arguments: dict[str, Any], allow_code_execution: bool, *, local: bool
) -> nn.Module:
    transformers = require("transformers", extra="hf", purpose=f"The model {identity!r}")
    revision = arguments.pop("revision", None)
    options = {"revision": revision, "local_files_only": local, "trust_remote_code": allow_code_execution}
    try:
        content, _ = transformers.PreTrainedConfig.get_config_dict(
            identity, revision=revision, local_files_only=local
        )
    except (
        Exception
    ) as cause:  # of a configuration that is no mapping, transformers raises what its code runs into
        raise ModelError(f"The configuration of {identity!r} cannot be read: {first_line(cause)}") from cause
    # Checked in the file itself: a configuration must not be able to switch its own code on.
    if (asks := _asks_for_code(content)) and not allow_code_execution:
        raise ModelError(
            f"{identity!r} wants to run its own code ({asks!r} in config.json). "
            "Pass --allow-code-execution if you trust it, or choose a model that transformers knows."
        )
    names = content.get("architectures") or ["AutoModel"]
    kind = getattr(transformers, names[0], None) if not asks else transformers.AutoModel
    if kind is None:
        raise ModelError(
            f"{identity!r} is a {names[0]!r}, which transformers {transformers.__version__} does not know."
        )
    try:
        return kind.from_pretrained(identity, use_safetensors=True, **options, **arguments)
    except Exception as cause:  # network, missing files and damaged weights each have their own class
        raise ModelError(f"{identity!r} cannot be loaded: {first_line(cause)}") from cause


def _asks_for_code(content: object) -> str:
    """Return the key of a configuration, at any depth, that asks for code of its own, or an empty string."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key in ("auto_map", "trust_remote_code") and value:
                return str(key)
            if inner := _asks_for_code(value):
                return inner
    if isinstance(content, list):
        return next(filter(None, map(_asks_for_code, content)), "")
    return ""


_HUBS: dict[str, Callable[[str, dict[str, Any], bool], nn.Module]] = {"hf": _from_hub, "timm": _from_timm}


def _from_keras_file(path: Path, arguments: dict[str, Any]) -> nn.Module:
    custom = arguments.pop("custom_objects", None)
    if arguments:
        raise ArgumentError(
            f"A .keras file takes the argument 'custom_objects' only, got {', '.join(arguments)}."
        )
    return read_keras(path, custom)


def _from_onnx_file(path: Path, arguments: dict[str, Any]) -> nn.Module:
    if arguments:
        raise ArgumentError(f"An .onnx file takes no arguments, got {', '.join(arguments)}.")
    from tersor.loading.onnx.convert import read_onnx_or_graph

    return read_onnx_or_graph(path)


#: Files that are networks, by suffix.
_READERS: dict[str, Callable[[Path, dict[str, Any]], nn.Module]] = {
    ".keras": _from_keras_file,
    ".onnx": _from_onnx_file,
}
#: Files that run code when they are read; only with the user's word.
_TRUSTED: dict[str, Callable[[Path], nn.Module]] = {
    ".pt": read_module,
    ".pth": read_module,
    ".h5": read_trusted_keras,
    ".hdf5": read_trusted_keras,
}
