"""Time files: one alone, one against another, many against one."""

from collections.abc import Sequence

from tersor._check import positive
from tersor.errors import MeasurementError
from tersor.exporting.artefact import Artefact
from tersor.exporting.feed import feed
from tersor.loading.inputs import Inputs
from tersor.measurement.contest import LAUNCHES, Setting, contest, solo
from tersor.measurement.result import Comparison, Measurement

__all__ = ["compare", "measure", "measure_all"]
#: Processes that hold a file at the same time; more would hold too much memory.
_AT_ONCE = 8


def measure(
    artefact: Artefact, inputs: Inputs, *, threads: int = 1, seconds: float = 3.0, batch: int | None = None
) -> Measurement:
    """Time one file in a process of its own.

    Durations of two such calls must not be divided by each other: the machine changes in between. Use `compare`.

    Args:
        artefact: the file.
        inputs: a real batch.
        threads: threads the runtime may use.
        seconds: time to measure for, seconds.
        batch: samples per call; None takes `inputs` as they are.

    Raises:
        MeasurementError: if the file cannot be run.
    """
    positive("seconds", seconds)
    arrays, size = feed(artefact, inputs, batch)
    return solo(Setting(artefact, threads), arrays, batch=size, seconds=seconds)


def compare(
    base: Artefact,
    candidate: Artefact,
    inputs: Inputs,
    *,
    threads: int = 1,
    seconds: float = 10.0,
    batch: int | None = None,
    launches: int = LAUNCHES,
) -> Comparison:
    """Return how much faster `candidate` is than `base` on this machine.

    Both run on the same processors, in turns of 50 ms (ABBA), in several launches of fresh processes. A launch gives
    the median ratio of its neighbouring turns; turns spoilt by the system are left out, or taken in processor time
    where all are. The speed-up is the median over launches, and its 95 per cent interval comes from order
    statistics, so it assumes no distribution. Where one of six launches stands against the others, there are up to
    four more.

    Args:
        base: the file to compare with; measure it as it would really be used.
        candidate: the file to compare.
        inputs: a real batch.
        threads: threads each runtime may use.
        seconds: time cap without opening the files, seconds; it gives way to the turns that an interval needs.
        batch: samples per call; None takes `inputs` as they are.
        launches: fresh processes for each file. With fewer than six the interval does not know how much processes
            of one file differ (about half a per cent), so a ratio near 1 is not settled.

    Raises:
        MeasurementError: if one of the files cannot be run.

    Example:
        >>> import tempfile, torch
        >>> from tersor.exporting.export import export
        >>> folder, x = tempfile.TemporaryDirectory(), (torch.randn(2, 64),)
        >>> file = export(torch.nn.Linear(64, 64), x, f"{folder.name}/model.onnx")
        >>> same = compare(file, file, x, seconds=0.1, launches=1)
        >>> same.low <= same.ratio <= same.high
        True
    """
    (result,) = measure_all(
        base, (candidate,), inputs, threads=threads, seconds=seconds, batch=batch, launches=launches
    )
    if isinstance(result, MeasurementError):
        raise result
    return result


def measure_all(
    base: Artefact,
    candidates: Sequence[Artefact],
    inputs: Inputs,
    *,
    threads: int = 1,
    seconds: float = 3.0,
    batch: int | None = None,
    launches: int = LAUNCHES,
) -> tuple[Comparison | MeasurementError, ...]:
    """Compare many files with one base, as `compare` does, in rounds that every file takes part in.

    Args:
        base: the file to compare with.
        candidates: the files to compare.
        inputs: a real batch.
        threads: threads each runtime may use.
        seconds: time cap for each candidate, seconds.
        batch: samples per call; None takes `inputs` as they are.
        launches: as in `compare`; two are enough to rank candidates.

    Returns:
        In the order of `candidates`, the Comparison, or the error of a file that could not be run.

    Raises:
        MeasurementError: if the base cannot be run.
    """
    positive("seconds", seconds)
    positive("threads", threads)
    positive("launches", launches)
    arrays, size = feed(base, inputs, batch)
    results: list[Comparison | MeasurementError] = []
    for start in range(0, len(candidates), _AT_ONCE):
        group = [Setting(artefact, threads) for artefact in candidates[start : start + _AT_ONCE]]
        results += contest(
            Setting(base, threads), group, arrays, batch=size, seconds=seconds, launches=launches
        )
    return tuple(results)
