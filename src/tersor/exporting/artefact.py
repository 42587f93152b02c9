"""The nouns of the exporting room: an Artefact is a file for a runtime, a Session is that file opened.

Nothing here imports torch: a process that only runs a file has no need of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from tersor.exporting.program import Program


@dataclass(frozen=True, slots=True)
class Artefact:
    """A model as a file that a stock runtime opens.

    Attributes:
        runtime: name of the runtime, a key of `RUNTIMES`.
        path: the main file.
        size_bytes: size of everything that has to be shipped, in bytes.
        sha256: hash of the main file.
        options: options the runtime opens it with (`graph_optimization`, ...), JSON values only.
        inputs: names of the input tensors, in the order of `forward`.
        outputs: names of the output tensors; the main one first, the others in the order of the model.

    Example:
        >>> artefact = Artefact("onnxruntime", Path("model.onnx"), 10, "ab", {"memory_arena": True}, ("x",), ("y",))
        >>> Artefact.from_json(artefact.to_json()) == artefact
        True
    """

    runtime: str
    path: Path
    size_bytes: int
    sha256: str
    options: Mapping[str, object] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the artefact as one line of JSON."""
        return json.dumps(asdict(self) | {"path": str(self.path)})

    @classmethod
    def from_json(cls, text: str) -> "Artefact":
        """Read what `to_json` wrote."""
        values = json.loads(text)
        names = {key: tuple(values[key]) for key in ("inputs", "outputs")}
        return cls(**{**values, **names, "path": Path(values["path"])})


class Session(Protocol):
    """An opened artefact: arrays in, in the order of `forward`'s tensors; arrays out, the main output first."""

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Run the model once."""
        ...


class Runtime(Protocol):
    """A way to write a model to a file and to run that file."""

    @property
    def name(self) -> str:
        """Key in `RUNTIMES`."""
        ...

    def missing(self) -> str:
        """Return what has to be installed before this runtime works here; empty when nothing."""
        ...

    def write(self, program: "Program", path: Path) -> Mapping[str, object]:
        """Write `program` to `path` with a dynamic batch axis; return the options to open it with."""
        ...

    def open(self, artefact: Artefact, *, threads: int) -> Session:
        """Open a file that `write` wrote, to run on `threads` threads."""
        ...
