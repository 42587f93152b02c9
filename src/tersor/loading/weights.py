"""Read a file of weights into tensors. The only file of tersor that calls `torch.load`."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from tersor.errors import ModelError
from tersor.loading.archive import check_archive
from tersor.loading.references import first_line

_TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
#: Names under which training scripts nest the weights in a checkpoint.
_NESTED = ("state_dict", "model_state_dict", "model")

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def read_weights(path: str | Path, *, allow_code_execution: bool = False) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file, or from a torch file that needs no code to be read.

    Args:
        path: `.safetensors`, or `.pt`, `.pth`, `.ckpt`, `.bin` with tensors only.
        allow_code_execution: also read torch files that run code when they are loaded. Only for files you made.

    Returns:
        Tensors on the CPU, by name.

    Raises:
        ModelError: if the file is missing, of another format, damaged, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"There is no weights file {str(path)!r} (looked from {str(Path.cwd())!r}).")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, ValueError, OSError) as cause:
            raise ModelError(
                f"{path.name!r} is not a readable safetensors file: {first_line(cause)}"
            ) from cause
    if path.suffix not in _TORCH_SUFFIXES:
        raise ModelError(
            f"Weights come as .safetensors, or as {', '.join(_TORCH_SUFFIXES)} holding tensors only; "
            f"got {path.name!r}. Save them with safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
        )
    return _tensors(_read_torch(path, allow_code_execution), path)


def read_module(path: Path) -> nn.Module:
    """Return the module that was pickled into a torch file. This runs whatever the file says; only for files you made.

    Raises:
        ModelError: if the file is missing, or holds something else.
    """
    if not path.is_file():
        raise ModelError(f"There is no file {str(path)!r} (looked from {str(Path.cwd())!r}).")
    found = _read_torch(path, allow_code_execution=True)
    if not isinstance(found, nn.Module):
        raise ModelError(
            f"{path.name!r} holds {type(found).__name__}, not a module; pass file.py:build --weights {path.name}."
        )
    return found


def _read_torch(path: Path, allow_code_execution: bool) -> Any:
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped:
        check_archive(path, ModelError)
    if allow_code_execution:
        return _load(path, weights_only=False)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        names = _globals(path) or _GLOBAL.findall(str(cause))
        if not names:
            # PyTorch's own message advises to load the file unsafely; ours does not.
            raise ModelError(f"{path.name!r} is damaged, or no torch file of tensors.") from cause
        raise ModelError(
            f"{path.name!r} is a pickle that would import {', '.join(names)}, that is, run code. Save the tensors only "
            "(safetensors.torch.save_file(model.state_dict(), ...)) and pass --model file.py:build --weights ..., "
            "or pass --allow-code-execution if you made the file."
        ) from None
    except Exception as cause:  # on damaged bytes the unpickler raises whatever its next step raises
        raise ModelError(
            f"{path.name!r} is damaged, or no torch file of tensors ({type(cause).__name__})."
        ) from cause


def _load(path: Path, *, weights_only: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=weights_only)
    except Exception as cause:  # the file's own code may raise anything
        raise ModelError(f"{path.name!r} cannot be read: {first_line(cause)}") from cause


def _globals(path: Path) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged file: the caller reports the first reading error instead
        return []


def _tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, nn.Module):
        return dict(loaded.state_dict())
    while isinstance(loaded, Mapping):
        content = cast(Mapping[Any, Any], loaded)
        nested = next(
            (content[key] for key in _NESTED if isinstance(content.get(key), Mapping | nn.Module)), None
        )
        if nested is None:
            break
        if isinstance(nested, nn.Module):
            return dict(nested.state_dict())
        loaded = nested
    found = {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, Mapping) else {}
    if not found:
        raise ModelError(
            f"{path.name!r} holds no named tensors; pass a file with the state_dict of the model."
        )
    return {str(name): tensor for name, tensor in found.items()}


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> nn.Module:
    """Load `weights` into `model` (which is changed) if names and shapes fit exactly.

    A prefix that all the names share with no name of the model (`module.` of data-parallel training, `model.` of
    Lightning) is removed.

    Raises:
        ModelError: naming the keys that are missing, unexpected or of another shape.
    """
    own = model.state_dict()
    weights = _without_prefix(weights, own.keys())
    missing = [name for name in own if name not in weights]
    extra = [name for name in weights if name not in own]
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in weights and isinstance(tensor, Tensor) and weights[name].shape != tensor.shape
    ]
    faults = [
        f"{what} {_some(names)}"
        for what, names in (("missing", missing), ("unexpected", extra), ("other shape", shapes))
        if names
    ]
    # Files of shared parameters store them once, under one of their names.
    if faults and not shapes and not extra and _only_aliases(model, missing):
        faults = []
    if faults:
        raise ModelError(f"The weights in {source!r} do not fit {type(model).__name__}: {'; '.join(faults)}.")
    model.load_state_dict(weights, strict=False)
    return model


def _without_prefix(weights: Mapping[str, Tensor], own: Any) -> Mapping[str, Tensor]:
    names = set(own)
    for prefix in ("module.", "model.", "_orig_mod."):
        if weights and all(name.startswith(prefix) for name in weights) and not names & set(weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def _only_aliases(model: nn.Module, missing: list[str]) -> bool:
    tensors = dict(model.state_dict(keep_vars=True))
    present = {id(tensor) for name, tensor in tensors.items() if name not in missing}
    return all(id(tensors[name]) in present for name in missing)


def _some(names: list[str], shown: int = 4) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
