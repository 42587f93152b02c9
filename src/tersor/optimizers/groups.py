"""Which parameters an optimizer gets, and in which groups."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tersor.errors import ArgumentError
from tersor.optimizers.registry import Parameters

#: Devices for which torch has fused steps.
_FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu", "hpu", "mtia"})


def as_groups(parameters: Parameters) -> list[dict[str, Any]]:
    """Return `parameters` as a list of groups that can be walked twice.

    Raises:
        ArgumentError: if there is nothing to train.

    Example:
        >>> len(as_groups([torch.zeros(1)])[0]["params"])
        1
    """
    entries = list(parameters)
    if not entries:
        raise ArgumentError(
            "There are no parameters to train. Check `requires_grad` of the model's parameters."
        )
    if isinstance(entries[0], dict):
        return [
            {**group, "params": _tensors(group["params"])} for group in entries if isinstance(group, dict)
        ]
    return [{"params": entries}]


def _tensors(value: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def is_fusible(groups: list[dict[str, Any]]) -> bool:
    """Say whether torch's fused kernels take these parameters: real floating point on a supported device."""
    tensors = [tensor for group in groups for tensor in group["params"]]
    return all(t.is_floating_point() and t.device.type in _FUSED_DEVICES for t in tensors)


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the trainable parameters of `model` in up to three groups: `matrix`, `table` and `vector`.

    A `matrix` has two or more axes and mixes features (linear and convolution weights); a `table`
    is looked up or read out (embeddings, the last linear layer) and is left to elementwise
    methods by Muon; a `vector` has at most one axis (biases, scales of norms, quantization steps) and
    gets no weight decay.

    Raises:
        ArgumentError: if nothing is trainable.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> [(g["kind"], len(g["params"])) for g in parameter_groups(model)]
        [('matrix', 1), ('table', 1), ('vector', 2)]
    """
    tables = _tables(model)
    sorted_into: dict[str, list[Tensor]] = {"matrix": [], "table": [], "vector": []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            kind = "vector" if parameter.dim() < 2 else "table" if id(parameter) in tables else "matrix"
            sorted_into[kind].append(parameter)
    groups: list[dict[str, Any]] = [{"params": p, "kind": kind} for kind, p in sorted_into.items() if p]
    if not groups:
        raise ArgumentError("No parameter of the model has requires_grad=True, so there is nothing to train.")
    for group in groups:
        if group["kind"] == "vector":
            group["weight_decay"] = 0.0
    return groups


def _tables(model: nn.Module) -> set[int]:
    """Identities of embedding weights and of the weight of the last linear layer."""
    found = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return found | {id(linear[-1].weight)} if linear else found


def trainable(groups: list[dict[str, Any]]) -> list[torch.Tensor]:
    """Return the tensors of all groups in order."""
    return [tensor for group in groups for tensor in group["params"]]
