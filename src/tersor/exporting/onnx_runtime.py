"""The `onnxruntime` runtime: one `.onnx` file, run by ONNX Runtime on the processor.

Nothing imports torch before `write`, so that a process that times a file holds the runtime and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tersor._check import one_of
from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.runtimes import runtime

if TYPE_CHECKING:
    from tersor.exporting.program import Program

#: `graph_optimization` -> member of `onnxruntime.GraphOptimizationLevel`.
LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


@runtime
@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """ONNX Runtime on the processor.

    Options of its artefacts:
        graph_optimization: `disable`, `basic`, `extended` or `all`.
        memory_arena: whether freed memory is kept for the next call; faster, and larger at its peak.
        entries: further session configuration, name to value, as in `SessionOptions.add_session_config_entry`.

    Source:
        https://onnxruntime.ai/docs/performance/tune-performance/
    """

    name: str = "onnxruntime"

    def missing(self) -> str:
        """Return nothing: it is a core dependency."""
        return ""

    def write(self, program: "Program", path: Path) -> Mapping[str, object]:
        """Write one `.onnx` file; above 2 GB the weights lie beside it."""
        from tersor.exporting.onnx_file import write_onnx

        write_onnx(program, path)
        entries = {"entries": dict(program.entries)} if program.entries else {}
        return {"graph_optimization": "all", "memory_arena": True, **entries}

    def open(self, artefact: Artefact, *, threads: int) -> Session:
        """Open the file in one session with `threads` threads inside an operation and one between them."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        level = one_of("graph_optimization", str(artefact.options.get("graph_optimization", "all")), LEVELS)
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
        options.enable_cpu_mem_arena = bool(artefact.options.get("memory_arena", True))
        entries = artefact.options.get("entries", {})
        for key, value in entries.items() if isinstance(entries, Mapping) else ():
            options.add_session_config_entry(str(key), str(value))
        session = onnxruntime.InferenceSession(artefact.path, options, providers=["CPUExecutionProvider"])
        names = tuple(node.name for node in session.get_inputs())

        def run(inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
            return tuple(map(np.asarray, session.run(None, dict(zip(names, inputs, strict=True)))))

        return run
