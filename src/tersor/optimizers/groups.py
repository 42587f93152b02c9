"""Which parameters an optimizer gets, and in which groups."""

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from tersor.errors import ArgumentError
from tersor.optimizers.registry import Parameters

#: Devices for which torch has fused steps.
_FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu", "hpu", "mtia"})
#: A parameter's name up to the first entry of a list of modules.
_ENTRY = re.compile(r"(.*?\.)?\d+(?=\.)")


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


def parameter_groups(model: nn.Module, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Return the trainable parameters of `model` in groups by kind: `matrix`, `table` and `vector`.

    A `matrix` has two or more axes and mixes features (linear and convolution weights); a `table`
    is looked up or read out (embeddings, the last linear layer) and is left to elementwise
    methods by Muon; a `vector` has at most one axis (biases, scales of norms, quantization steps) and
    gets no weight decay.

    Args:
        model: whose parameters with `requires_grad` are taken.
        layer_decay: below 1, the groups are divided further by depth and carry a `rate`, the factor on the learning
            rate: 1 for the last level, `layer_decay` times less for each level below it (see `levels`).

    Raises:
        ArgumentError: if nothing is trainable, or `layer_decay` is not in (0, 1].

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> [(g["kind"], len(g["params"])) for g in parameter_groups(model)]
        [('matrix', 1), ('table', 1), ('vector', 2)]
        >>> [(g["kind"], g["rate"]) for g in parameter_groups(model, layer_decay=0.5)]
        [('matrix', 0.5), ('table', 1.0), ('vector', 0.5), ('vector', 1.0)]

    Source:
        Decay by layer: Clark et al., ELECTRA, ICLR 2020, appendix B; Bao et al., BEiT, ICLR 2022, appendix.
    """
    if not 0 < layer_decay <= 1:
        raise ArgumentError(f"`layer_decay` is a factor in (0, 1], got {layer_decay!r}. 0.8 is usual.")
    tables = _tables(model)
    depth = levels(model)
    sorted_into: dict[tuple[str, int], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = "vector" if parameter.dim() < 2 else "table" if id(parameter) in tables else "matrix"
            level = depth[name] if layer_decay < 1 else 0
            sorted_into.setdefault((kind, level), []).append(parameter)
    if not sorted_into:
        raise ArgumentError("No parameter of the model has requires_grad=True, so there is nothing to train.")
    groups: list[dict[str, Any]] = []
    for kind, level in sorted(sorted_into):
        group: dict[str, Any] = {"params": sorted_into[kind, level], "kind": kind}
        if layer_decay < 1:
            group["rate"] = layer_decay ** (max(depth.values()) - level)
        if kind == "vector":
            group["weight_decay"] = 0.0
        groups.append(group)
    return groups


def levels(model: nn.Module) -> dict[str, int]:
    """Return the depth of each parameter, in the order in which the modules are registered.

    An entry of a list of modules is one level (a block of a transformer, a stage's block of a ResNet), and so is
    everything between two of them: stem, blocks, head.

    Example:
        >>> levels(nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1)))
        {'0.weight': 0, '2.weight': 1, '2.bias': 1}
    """
    found: dict[str, int] = {}
    names = [name for name, _ in model.named_parameters()]
    for level, (_, members) in enumerate(groupby(names, key=_block)):
        found |= dict.fromkeys(members, level)
    return found


def _block(name: str) -> str:
    """Return the name of the entry of a list that a parameter belongs to; empty outside of lists."""
    found = _ENTRY.match(name)
    return found[0] if found else ""


def _tables(model: nn.Module) -> set[int]:
    """Identities of embedding weights and of the weight of the last linear layer."""
    found = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return found | {id(linear[-1].weight)} if linear else found


def trainable(groups: list[dict[str, Any]]) -> list[torch.Tensor]:
    """Return the tensors of all groups in order."""
    return [tensor for group in groups for tensor in group["params"]]
