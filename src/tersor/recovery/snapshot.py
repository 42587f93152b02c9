"""The full state of a training run, in memory: what a rollback and a resume go back to."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

#: Tensors by name, in named parts.
Named: TypeAlias = dict[str, dict[str, Tensor]]


@dataclass
class Progress:
    """What the loop knows besides the model and the optimizer.

    Attributes:
        step: number of finished steps.
        scale: factor on every learning rate, halved at each rollback.
        rollbacks: how often the guard went back.
        losses: loss of every finished step.
        looks: (step, score) of every look of a `Watch`.
    """

    step: int = 0
    scale: float = 1.0
    rollbacks: int = 0
    losses: list[float] = field(default_factory=list)
    looks: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Snapshot:
    """Copies of all tensors of a run, and its numbers as JSON data."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def take(model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, more: Named) -> Snapshot:
    """Copy the state of a run.

    Args:
        model: its parameters and buffers are copied.
        optimizer: its state and groups are copied.
        progress: its numbers are copied.
        more: further tensors by room and name (the running mean, the best weights so far), copied.
    """
    tensors = {f"model.{name}": t.detach().clone() for name, t in model.state_dict().items()}
    tensors |= {f"{room}.{name}": t.clone() for room, part in more.items() for name, t in part.items()}
    tensors["random"] = torch.get_rng_state()
    state = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value.clone()
            elif value is not None:
                scalars.setdefault(str(index), {})[name] = value
    numbers = {
        "groups": state["param_groups"],
        "scalars": scalars,
        "progress": {**vars(progress), "losses": list(progress.losses), "looks": list(progress.looks)},
    }
    return Snapshot(tensors, numbers)


def restore(snapshot: Snapshot, model: nn.Module, optimizer: torch.optim.Optimizer, more: Named) -> Progress:
    """Put a run back to where `snapshot` was taken, the tensors of `more` included; return its progress."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, **{room: {} for room in more}}
    for key, value in snapshot.tensors.items():
        room, _, name = key.partition(".")
        if room in parts:
            parts[room][name] = value
    model.load_state_dict(parts["model"])
    for room, part in more.items():
        part.clear()
        part.update({name: value.clone() for name, value in parts[room].items()})
    state: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in snapshot.numbers["scalars"].items()
    }
    for key, value in parts["optimizer"].items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value.clone()
    groups = [
        {k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in snapshot.numbers["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    torch.set_rng_state(snapshot.tensors["random"])
    progress = snapshot.numbers["progress"]
    looks = [(step, score) for step, score in progress["looks"]]
    return Progress(**{**progress, "losses": list(progress["losses"]), "looks": looks})
