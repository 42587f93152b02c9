"""The `torch` and `torch-compile` runtimes: a torch.export file, run eagerly or compiled.

Opening such a file runs whatever it holds, so only a file with the hash that its writer recorded is opened.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.files import check_hash
from tersor.exporting.runtimes import runtime

if TYPE_CHECKING:
    from tersor.exporting.program import Program


@runtime
@dataclass(frozen=True, slots=True)
class TorchEager:
    """The captured graph, one torch operation after the other."""

    name: str = "torch"

    def missing(self) -> str:
        """Return nothing: it is a core dependency."""
        return ""

    def write(self, program: "Program", path: Path) -> Mapping[str, object]:
        """Write graph and weights as one file."""
        return _write(program, path)

    def open(self, artefact: Artefact, *, threads: int) -> Session:
        """Load the graph and run it eagerly."""
        return as_session(_load(artefact), threads)


@runtime
@dataclass(frozen=True, slots=True)
class TorchCompile:
    """The captured graph through `torch.compile`; each new input shape is compiled when it first appears."""

    name: str = "torch-compile"

    def missing(self) -> str:
        """Return the compiler that inductor needs and does not find."""
        return missing_compiler()

    def write(self, program: "Program", path: Path) -> Mapping[str, object]:
        """Write graph and weights as one file."""
        return _write(program, path)

    def open(self, artefact: Artefact, *, threads: int) -> Session:
        """Load the graph and compile it, with its weights as constants."""
        import torch

        compiled = torch.compile(_load(artefact), dynamic=False, options={"freezing": True})
        return as_session(compiled, threads)


def missing_compiler() -> str:
    """Return the compiler that inductor needs and does not find; empty if it is there."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return "a C++ compiler (g++ or clang++), with which torch makes machine code"
    return ""


def _write(program: "Program", path: Path) -> Mapping[str, object]:
    import torch

    # As an open file: torch warns about any name that does not end in `.pt2`.
    with path.open("wb") as file:
        torch.export.save(program.graph, file)
    return {}


def _load(artefact: Artefact) -> Any:
    import torch

    # Files of quantized models name our operators, which exist once their module is imported.
    import tersor.quantization.operators as _operators

    del _operators
    check_hash(artefact)
    with artefact.path.open("rb") as file:
        return torch.export.load(file).module()


def as_session(function: Callable[..., Any], threads: int) -> Session:
    """Return `function`, tensors in and out, as a session that runs on `threads` threads."""
    import torch

    def run(inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        before = torch.get_num_threads()
        if before != threads:
            torch.set_num_threads(threads)
        try:
            with torch.no_grad():
                outputs = function(*map(torch.from_numpy, inputs))
        finally:
            if before != threads:
                torch.set_num_threads(before)
        return tuple(output.numpy() for output in outputs)

    return run
