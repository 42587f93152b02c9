"""The process that opens one file and times it: `python -m tersor.measurement.worker`.

One JSON object a line comes in on standard input, one goes out on standard output:

    {"do": "open", "artefact": "...", "threads": 1, "inputs": "x.npz", "cpus": [1]}
        -> {"load_s": 0.1}
    {"do": "block", "seconds": 0.05}
        -> {"times_s": [...], "busy_s": [...], "switches": 0, "energy_j": null}
    {"do": "run", "inputs": "x.npz", "outputs": "y.npz"}
        -> {}
    {"do": "memory"}
        -> {"peak_bytes": 1000000}

An exception becomes {"error": "..."}. Nothing here imports torch, so that the memory of a file for another
runtime is that runtime's alone.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import psutil

from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.opening import open_artefact
from tersor.measurement.energy import energy_missing, joules_since, read_energy


@dataclass(slots=True)
class Worker:
    """What the process holds between requests."""

    session: Session | None = None
    inputs: list[np.ndarray] = field(default_factory=list)
    empty_bytes: int = 0
    has_energy: bool = False

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open the file and run it once; the first run allocates and compiles what the runtime left for later."""
        _pin(request["cpus"])
        artefact = Artefact.from_json(request["artefact"])
        self.inputs = read_arrays(request["inputs"])
        self.has_energy = not energy_missing()
        self.empty_bytes = psutil.Process().memory_info().rss
        start = time.perf_counter()
        self.session = open_artefact(artefact, threads=request["threads"])
        self.session(self.inputs)
        load_s = time.perf_counter() - start
        gc.collect()
        gc.disable()
        return {"load_s": load_s}

    def block(self, request: dict[str, Any]) -> dict[str, Any]:
        """Call the file for `seconds`, at least once; take the time and the processor time of every call."""
        assert self.session is not None, "`open` comes first"
        session, inputs, clock, processor = self.session, self.inputs, time.perf_counter, time.process_time
        times_s: list[float] = []
        busy_s: list[float] = []
        switches, energy = _involuntary_switches(), read_energy() if self.has_energy else {}
        end = clock() + request["seconds"]
        while not times_s or clock() < end:
            busy = processor()
            start = clock()
            session(inputs)
            times_s.append(clock() - start)
            busy_s.append(processor() - busy)
        return {
            "times_s": times_s,
            "busy_s": busy_s,
            "switches": _involuntary_switches() - switches,
            "energy_j": joules_since(energy) if self.has_energy else None,
        }

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Call the file once and leave what it gives in a file."""
        assert self.session is not None, "`open` comes first"
        np.savez(request["outputs"], *self.session(read_arrays(request["inputs"])))
        return {}

    def memory(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Return the peak resident memory above that of this process before it opened the file."""
        return {"peak_bytes": max(_peak_bytes() - self.empty_bytes, 0)}


def read_arrays(path: Path | str) -> list[np.ndarray]:
    """Return the arrays that `np.savez(path, *arrays)` wrote, in their order."""
    with np.load(path) as stored:
        return [stored[f"arr_{position}"] for position in range(len(stored.files))]


def _pin(cpus: list[int]) -> None:
    """Bind this process to `cpus`, before a runtime starts its threads; not every system can."""
    process = psutil.Process()
    if cpus and (psutil.LINUX or psutil.WINDOWS):
        process.cpu_affinity(cpus)


def _involuntary_switches() -> int:
    return psutil.Process().num_ctx_switches().involuntary


def _peak_bytes() -> int:
    """Return the peak resident memory of this process.

    `getrusage` would also count what the parent held when it forked, so Linux is asked for its own record.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _claim_output() -> TextIO:
    """Return the pipe to the parent, and send whatever else is printed here to standard error."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(pipe, "w")


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answer requests until the pipe closes."""
    worker = Worker()
    do: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "open": worker.open,
        "block": worker.block,
        "run": worker.run,
        "memory": worker.memory,
    }
    for line in requests:
        request = json.loads(line)
        try:
            reply = do[request["do"]](request)
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve(sys.stdin, _claim_output())
