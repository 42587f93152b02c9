"""What a search was asked for, as a file from which it can be asked for again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tersor.errors import FolderError
from tersor.search.journal import write_whole
from tersor.search.request import Options, Origin, Request

ASKED = "asked.json"
#: Options of `tersor.optimize` that are plain values.
_PLAIN = (
    "confidence", "methods", "leave", "threads", "batch", "seed", "loss", "limits", "max_candidates", "max_memory",
    "leave_out_copies", "ledger",
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
        command: the command line; empty from Python.
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
    command: str = ""

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
    )


def _as_json(value: object) -> object:
    return str(value.absolute()) if isinstance(value, Path) else value
