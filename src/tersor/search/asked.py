"""What a search was asked for, as a file from which it can be asked for again."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from tersor.errors import DataError, FolderError
from tersor.graph.trace import named_tensors
from tersor.search.journal import write_whole
from tersor.search.request import Options, Origin, Request

ASKED = "asked.json"
#: Options of `tersor.optimize` that are plain values.
_PLAIN = (
    "confidence", "methods", "leave", "threads", "batch", "seed", "loss", "limits", "max_candidates", "max_memory",
    "executor", "leave_out_copies", "ledger",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """The words of a call of `tersor.optimize`.

    Attributes:
        max_drop: as it was given.
        targets: runtimes.
        goal: what is made better.
        budget: as it was given; empty for none.
        options: the others, those that JSON can hold.
        origin: where the model comes from; None if it was given as an object.
        data: reference of the data; empty if it was given as an object.
        metric: name or reference; empty if it was inferred, or given as an object.
        needed: words that were given as objects, and are needed again.
        model_sha256: hash of the weights.
        data_sha256: hash of the certification samples.
        command: the command line; empty from Python.
        config: its words in full, as TOML.
    """

    max_drop: str
    targets: tuple[str, ...]
    goal: str
    budget: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None
    data: str = ""
    metric: str = ""
    needed: tuple[str, ...] = ()
    model_sha256: str = ""
    data_sha256: str = ""
    command: str = ""
    config: str = ""

    def of(self, model: nn.Module, data_sha256: str) -> "Asked":
        """Return the same words about a `model` and data, which will be known again."""
        return replace(self, model_sha256=_hash(model), data_sha256=data_sha256)

    def check_same(self, model: nn.Module, data_sha256: str) -> None:
        """Refuse another model and other data.

        Raises:
            DataError: saying which of the two differs.
        """
        if self.model_sha256 != _hash(model):
            raise DataError(
                "The weights of the model are not those that this search began with. Give the same model, or begin a "
                "new search in another folder."
            )
        if self.data_sha256 != data_sha256:
            raise DataError(
                "The certification samples are not those that this search began with. Give the same data, or begin a "
                "new search in another folder."
            )

    def write(self, folder: Path) -> None:
        """Write it into the folder of a search."""
        write_whole(folder / ASKED, _ASKED.dump_json(self, indent=1).decode() + "\n")


_ASKED = TypeAdapter(Asked)


def read_asked(folder: Path) -> Asked:
    """Return what was asked for in the folder of a search.

    Raises:
        FolderError: if there is no search in it.
    """
    try:
        return _ASKED.validate_json((folder / ASKED).read_bytes())
    except (OSError, ValueError) as error:
        raise FolderError(
            f"There is no search to go on with in {folder.parent}: {folder.name}/{ASKED} cannot be read. Give the "
            "folder that `tersor optimize -o` was given."
        ) from error


def _hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(named_tensors(model).items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(content.numpy().tobytes())
    return digest.hexdigest()


def ask(
    model: object, data: object, metric: object, request: Request, options: Options, budget: object
) -> Asked:
    """Return a call of `tersor.optimize` as plain data, and which of its words cannot be."""
    objects = {"data": data, "metric": metric, "loss": options.get("loss")}
    needed = [name for name, value in objects.items() if not isinstance(value, str | None)]
    origin = options.get("origin") or (Origin(model) if isinstance(model, str) else None)
    plain = {name: value for name, value in options.items() if name in _PLAIN and value is not None}
    return Asked(
        max_drop=str(request.drop),
        targets=request.targets,
        goal=request.goal,
        budget="" if budget is None else str(budget),
        options={name: _as_json(value) for name, value in plain.items()},
        origin=origin,
        data=data if isinstance(data, str) else "",
        metric=metric if isinstance(metric, str) else "",
        needed=tuple(needed) if origin else ("model", *needed),
        command=options.get("command", ""),
        config=options.get("config", ""),
    )


def _as_json(value: object) -> object:
    return str(value.absolute()) if isinstance(value, Path) else value
