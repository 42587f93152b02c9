"""The parent's side of a worker: start it, ask it, and turn its death into a MeasurementError."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tersor.errors import MeasurementError
from tersor.exporting.artefact import Artefact
from tersor.measurement.worker import read_arrays

#: Compiling a large model is the longest thing a worker is asked to do.
_PATIENCE_S = 900.0


@dataclass(frozen=True, slots=True)
class Block:
    """One uninterrupted turn of a worker.

    Attributes:
        times_s: duration of each call, seconds.
        busy_s: processor time of each call, over all threads, seconds.
        switches: times the system took the processor away.
        energy_j: energy of the processor packages, joules; None where they do not tell.
    """

    times_s: tuple[float, ...]
    busy_s: tuple[float, ...]
    switches: int
    energy_j: float | None = None


class Runner:
    """A fresh process that holds one opened file; a context manager.

    It is called like a `Session`, so that whatever runs a file can run it where a crash harms nobody.

    Args:
        artefact: the file.
        inputs: arrays that it is opened with: they are run once.
        threads: threads the runtime may use.
        cpus: processors it is bound to; none binds it to none.
        patience_s: seconds after which a request without an answer is given up.
        wait: False only starts the process, which imports what it needs while others do the same; `open` follows.

    Raises:
        MeasurementError: if the file cannot be opened or run.
    """

    def __init__(
        self,
        artefact: Artefact,
        inputs: Sequence[np.ndarray],
        *,
        threads: int = 1,
        cpus: Sequence[int] = (),
        patience_s: float = _PATIENCE_S,
        wait: bool = True,
    ) -> None:
        self.artefact = artefact
        self.threads = threads
        self.patience_s = patience_s
        self._folder = tempfile.TemporaryDirectory(prefix="tersor-worker-")
        self._log = (Path(self._folder.name) / "stderr.txt").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tersor.measurement.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=_environment(threads),
            start_new_session=True,  # Ctrl-C is for the parent, which ends this process itself
        )
        self._replies: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._inputs, self._cpus, self.load_s = inputs, cpus, nan
        if wait:
            self.open()

    def __enter__(self) -> "Runner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open the file in the process and run it once.

        Raises:
            MeasurementError: if that fails; the process is ended.
        """
        arrays = Path(self._folder.name) / "inputs.npz"
        np.savez(arrays, *self._inputs)
        request = {
            "do": "open",
            "artefact": self.artefact.to_json(),
            "threads": self.threads,
            "inputs": str(arrays),
            "cpus": list(self._cpus),
        }
        try:
            self.load_s = self._ask(request)["load_s"]
        except MeasurementError:
            self.close()
            raise

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Run the file once on `inputs`; return its outputs, the main one first.

        Raises:
            MeasurementError: if it fails, the process ends, or it takes longer than the patience.
        """
        given, made = (Path(self._folder.name) / name for name in ("given.npz", "made.npz"))
        np.savez(given, *inputs)
        self._ask({"do": "run", "inputs": str(given), "outputs": str(made)})
        return tuple(read_arrays(made))

    def block(self, seconds: float) -> Block:
        """Run the file for `seconds`, at least once."""
        reply = self._ask({"do": "block", "seconds": seconds})
        return Block(tuple(reply["times_s"]), tuple(reply["busy_s"]), reply["switches"], reply["energy_j"])

    def peak_bytes(self) -> int:
        """Return the peak resident memory so far, above that of an empty worker."""
        return self._ask({"do": "memory"})["peak_bytes"]

    def close(self) -> None:
        """End the process and remove what it used."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            # A request that a dead process never read is still in the pipe, which is closed all the same.
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        self._folder.cleanup()

    def _listen(self) -> None:
        """Pass replies on; an empty one says that the process is gone."""
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._replies.put(line)
        except ValueError:
            pass  # closed by `close` while reading
        self._replies.put("")

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._replies.get(timeout=self.patience_s)
        except BrokenPipeError:
            line = ""
        except queue.Empty:
            raise self._failure(f"gave no answer in {self.patience_s:.3g} s") from None
        if not line:
            raise self._failure(f"ended with exit code {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise self._failure(f"failed with {reply['error']}")
        return reply

    def _failure(self, what: str) -> MeasurementError:
        self._log.flush()
        printed = Path(self._log.name).read_text(errors="replace").strip().splitlines()[-3:]
        said = f" It printed: {' | '.join(printed)}" if printed else ""
        return MeasurementError(
            f"The process that runs {self.artefact.path.name} in {self.artefact.runtime} {what}.{said} "
            "Export the model again, or leave this file out."
        )


def _environment(threads: int) -> dict[str, str]:
    """Return the environment of a worker: this one's import path, and `threads` for every threading library."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return {**os.environ, **counts, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
