"""The nouns of the exporting room: an Artefact is a file for a runtime, a Session is that file opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import nn

from tersor.loading.inputs import Inputs


@dataclass(frozen=True, slots=True)
class Artefact:
    """A model as a file that a stock runtime opens.

    Attributes:
        runtime: name of the runtime, a key of `RUNTIMES`.
        path: the main file.
        size_bytes: size of everything that has to be shipped, in bytes.
        sha256: hash of the main file.
        options: options the runtime opens it with (`graph_optimization`, ...), JSON values only.
    """

    runtime: str
    path: Path
    size_bytes: int
    sha256: str
    options: Mapping[str, object] = field(default_factory=dict)


class Session(Protocol):
    """An opened artefact: arrays in, arrays out, in the order of `forward`'s tensors."""

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Run the model once."""
        ...


class Runtime(Protocol):
    """A way to write a model to a file and to run that file."""

    @property
    def name(self) -> str:
        """Key in `RUNTIMES`."""
        ...

    def export(self, model: nn.Module, inputs: Inputs, path: Path) -> Artefact:
        """Write `model` to `path` with a dynamic batch axis."""
        ...

    def open(self, artefact: Artefact, *, threads: int) -> Session:
        """Open a file that `export` wrote, to run on `threads` threads."""
        ...
