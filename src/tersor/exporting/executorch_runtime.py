"""The `executorch` runtime: one `.pte` file for phones and small boards, run here by ExecuTorch's XNNPACK kernels."""

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor._extras import require
from tersor.errors import ExportError
from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.runtimes import runtime
from tersor.exporting.silence import silence

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from tersor.exporting.program import Program

#: A file plans its memory ahead, for at most so many samples a call.
LARGEST_BATCH = 32


@runtime
@dataclass(frozen=True, slots=True)
class ExecuTorch:
    """ExecuTorch with XNNPACK, whose kernels run on x86 and ARM processors; other operations use portable kernels.

    A file has memory for a number of samples that the axes of its first input tell; longer calls are made in parts.

    Source:
        https://docs.pytorch.org/executorch/ (XNNPACK backend)
    """

    name: str = "executorch"

    def missing(self) -> str:
        """Return the package, if it is not installed."""
        return "" if find_spec("executorch") else "`executorch` (pip install 'tersor[executorch]')"

    def write(self, program: "Program", path: Path) -> Mapping[str, object]:
        """Lower the graph, of a quantized model with torch's own operators on codes."""
        from tersor.exporting.decomposed import decompose

        path.write_bytes(lowered(program, None if program.rounded is None else decompose(program.rounded)))
        return {}

    def open(self, artefact: Artefact, *, threads: int) -> Session:
        """Load the file, to run on the threads of the process's one pool."""
        method = _Method(artefact.path, threads)
        return in_parts(method, next(iter(method.shapes()[0]), 1))


def lowered(program: "Program", model: "nn.Module | None" = None) -> bytes:
    """Return the file of a captured model, or of another form of it, in XNNPACK's kernels where it has them.

    It is captured once more, with a largest batch; always with one sample where lowering would fix the size anyway.

    Raises:
        ExportError: if ExecuTorch cannot lower it.
    """
    from tersor.exporting.program import recapture

    with silence(), _quiet():
        partition = require(f"{_XNNPACK}.xnnpack_partitioner", extra="executorch", purpose=_PURPOSE)
        exir = require("executorch.exir", extra="executorch", purpose=_PURPOSE)
        for largest in (LARGEST_BATCH, 1):
            edge = _lower(exir, partition.XnnpackPartitioner, recapture(program, model, largest))
            if _varies(edge.exported_program()):
                break
        return edge.to_executorch().buffer


def _varies(graph: "ExportedProgram") -> bool:
    """Whether the first axis of some input may still vary: lowering attention fixes it to that of the example."""
    names = set(graph.graph_signature.user_inputs)
    inputs = [
        node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder" and node.name in names
    ]
    sizes = [size for value in inputs for size in value.shape[:1] if not isinstance(size, int)]
    return any(size.node.expr.free_symbols for size in sizes)


def _lower(exir: ModuleType, partitioner: Callable[..., object], graph: "ExportedProgram") -> Any:
    """Return the program; operations go to XNNPACK one by one where it cannot order them in groups."""
    failure: Exception | None = None
    for alone in (False, True):
        try:
            return exir.to_edge_transform_and_lower(graph, partitioner=[partitioner(per_op_mode=alone)])
        except (AssertionError, RuntimeError) as error:
            failure = error
    raise ExportError(
        f"ExecuTorch cannot lower the model: {failure}. Export it to 'onnxruntime' instead."
    ) from failure


_XNNPACK, _PURPOSE = "executorch.backends.xnnpack.partition", "Writing a file for ExecuTorch"
_RUNNING = "Running a file in ExecuTorch"
#: The compiled code, and the module around it, which imports the exporter too: five seconds at each start.
_COMPILED, _AROUND = "executorch.extension.pybindings._C", "executorch.extension.pybindings.portable_lib"


def in_parts(run: Session, largest: int) -> Session:
    """Return `run` for calls of any size: those of more samples than `largest` are made in parts.

    Arrays whose first axis is as long as that of the first one are cut, the others are passed whole.

    Example:
        >>> in_parts(lambda inputs: (2 * inputs[0],), 2)([np.arange(5)])
        (array([0, 2, 4, 6, 8]),)
    """

    def whole(inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        size = len(inputs[0])
        if size <= largest:
            return run(inputs)
        parts = []
        for begin in range(0, size, largest):
            chosen = slice(begin, begin + largest)
            parts.append(run([array[chosen] if array.shape[:1] == (size,) else array for array in inputs]))
        return tuple(_join(outputs) for outputs in zip(*parts, strict=True))

    return whole


def shapes_of(path: Path) -> tuple[list[tuple[int, ...]], int]:
    """Return the largest shape of each input of a file, and the number of its outputs."""
    method = _Method(path, 1)
    return method.shapes(), method.method.method_meta().num_outputs()


def _join(outputs: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(outputs) if outputs[0].ndim else outputs[0]


def _bindings() -> ModuleType:
    """Return ExecuTorch's compiled code, alone where it can be found without what is around it."""
    importlib.import_module("torch")  # the compiled code needs its libraries
    with contextlib.suppress(ImportError):
        return importlib.import_module(_COMPILED)
    return require(_AROUND, extra="executorch", purpose=_RUNNING)


class _Pool:
    """The process's one pool of threads. A method keeps the pool that it was loaded with, which ends with the next."""

    def __init__(self) -> None:
        self.made = 0

    def resize(self, threads: int) -> None:
        kernels = _bindings()
        if kernels._threadpool_get_thread_count() != threads:  # there is no public name
            kernels._unsafe_reset_threadpool(threads)
            self.made += 1


_POOL = _Pool()


class _Method:
    """A loaded file, loaded again where the pool has changed since."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads
        self._load()

    def _load(self) -> None:
        with _quiet():
            bindings = _bindings()
            _POOL.resize(self.threads)
            self.pool = _POOL.made
            # Kept: a method does not keep its program alive.
            checks = bindings.Verification.InternalConsistency
            self.program = bindings._load_program(str(self.path), program_verification=checks)
            self.method = self.program.load_method("forward")

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shape of each input; axes that vary have their largest size."""
        metadata = self.method.method_meta()
        return [tuple(metadata.input_tensor_meta(i).sizes()) for i in range(metadata.num_inputs())]

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        import torch

        if self.pool != _POOL.made:
            self._load()
        outputs = self.method([torch.from_numpy(np.ascontiguousarray(array)) for array in inputs])
        return tuple(output.numpy() for output in outputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what compiled code prints on the standard error: ExecuTorch reports each file that it looked for."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
