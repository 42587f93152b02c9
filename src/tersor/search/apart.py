"""Files opened in processes of their own, where a crash or a hang is an error and nothing more."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from tersor.exporting.artefact import Artefact, Session
from tersor.measurement.runner import Runner


@contextmanager
def opening_apart(*, threads: int = 1, patience_s: float = 900.0) -> Iterator[Callable[[Artefact], Session]]:
    """Give a function that opens a file like `open_artefact`, but in a process that lives as long as the block.

    The process starts with the first call of the session. Whatever ends it raises `MeasurementError` there.

    Args:
        threads: threads the runtime may use.
        patience_s: seconds after which a call without an answer is given up.
    """
    runners: dict[tuple[Path, str], Runner] = {}
    with ExitStack() as processes:

        def opened(artefact: Artefact) -> Session:
            def session(inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
                key = artefact.path, str(artefact.options)
                if key not in runners:
                    runner = Runner(artefact, inputs, threads=threads, patience_s=patience_s)
                    runners[key] = processes.enter_context(runner)
                return runners[key](inputs)

            return session

        yield opened
