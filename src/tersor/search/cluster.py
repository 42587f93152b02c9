"""Work on a Ray cluster: what travels to a worker and back, and what becomes of work whose worker dies."""

import io
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import inf
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import psutil
import torch

from tersor._extras import require
from tersor.errors import ArgumentError, TersorError
from tersor.loading.references import first_line
from tersor.loading.task import Batch, Task
from tersor.measurement.machine import usable_cores
from tersor.search.guard import Exceeded, watched

T = TypeVar("T")

#: How often work whose worker died is begun again.
RETRIES = 2
#: Seconds between two looks at work under way.
_LOOK_S = 0.05
#: Seconds in which a cluster that was named has to answer.
_ANSWER_S = 10.0
_SAME = "Every machine of the cluster needs the same tersor, and the packages that model and data come from."


class Lost(TersorError):
    """Work whose worker died too often, or whose result did not come back."""


def require_ray() -> ModuleType:
    """Return the module `ray`.

    Raises:
        MissingExtraError: if it is not installed, with the line that installs it.
    """
    return require("ray", extra="ray", purpose="The executor 'ray'")


class Cluster:
    """Does pieces of work at the same time on the workers of a Ray cluster.

    Joins the cluster that `RAY_ADDRESS` names or that runs on this machine; without one, starts one here, which ends
    with `close`. A piece whose worker dies is begun again up to `RETRIES` times. The task travels once, without
    its sealed split. Files are exported, evaluated and timed by the search itself, on its own machine, one at a time:
    start it on the kind of machine that the file is for.

    Args:
        task: model and data, which the work refers to.

    Raises:
        MissingExtraError: if Ray is not installed.
        ArgumentError: if the cluster cannot be joined, or model or data cannot travel.
    """

    def __init__(self, task: Task) -> None:
        self._ray, self._pending = require_ray(), set()
        before = _children()
        self._joined = _join(self._ray)
        self.processes = _children() - before
        self._shared = (task, task.model)
        self._modules = _register_own_modules()
        try:
            self._task = self._ray.put(_packed(replace(task, certification=Sealed())))
        except Exception as error:
            self.close()
            raise ArgumentError(
                f"Model or data cannot be sent to a worker ({first_line(error)}). Give both by reference, such as "
                "`file.py:build`, or leave the executor 'local'."
            ) from error

    def begin(
        self, work: Sequence[Callable[[], T]], *, seconds: float = inf, most_bytes: float = inf
    ) -> list[Callable[[], T]]:
        """Begin every piece at once; see `Executor.begin`."""
        threads = torch.get_num_threads()
        # No more than some machine has, or the work would wait for ever.
        most = max(
            (node["Resources"].get("CPU", 1) for node in self._ray.nodes() if node["Alive"]), default=1
        )
        remote = self._ray.remote(_carried_out).options(
            num_cpus=max(1, min(threads, int(most))), max_retries=RETRIES, name="tersor"
        )
        waits = []
        for piece in work:
            try:
                sent = _packed(piece, self._shared)
            except Exception as error:
                waits.append(partial(_refuse, first_line(error)))
                continue
            ref = remote.remote(self._task, sent, threads, seconds, most_bytes)
            self._pending.add(ref)
            waits.append(partial(self._result, ref))
        return waits

    def close(self) -> None:
        """End what is under way; leave the cluster, which ends it if it was started here."""
        from ray import cloudpickle

        for ref in self._pending:
            self._ray.cancel(ref, force=True)
        self._pending.clear()
        while self._modules:
            cloudpickle.unregister_pickle_by_value(self._modules.pop())
        if self._joined:
            self._joined = False
            self._ray.shutdown()

    def _result(self, ref: Any) -> Any:
        """Wait for one piece.

        Raises:
            Lost: if its workers died.
        """
        from ray.exceptions import RayError, RayTaskError, WorkerCrashedError

        try:
            # Asleep in Python rather than in Ray, which would swallow what a signal raises.
            while not self._ray.wait([ref], timeout=0)[0]:
                time.sleep(_LOOK_S)
            value, error = _unpacked(self._ray.get(ref), self._shared)
        except RayTaskError as error:
            raise Lost(f"the worker could not begin: {first_line(error.cause)}. {_SAME}") from error
        except WorkerCrashedError as error:
            raise Lost(f"its worker died {1 + RETRIES} times") from error
        except RayError as error:
            raise Lost(f"its result did not come back: {first_line(error)}") from error
        except BaseException:
            self._ray.cancel(ref, force=True)
            raise
        finally:
            self._pending.discard(ref)
        if error is not None:
            raise error
        return value


def _refuse(fault: str) -> NoReturn:
    raise Lost(f"this work cannot be sent to a worker: {fault}")


class Sealed:
    """What stands for the sealed samples on a worker: none."""

    name = "certification"

    def __len__(self) -> int:
        return 0

    def batches(self, size: int, *, shuffle: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Yield nothing; see `Split.batches`."""
        del size, shuffle, limit
        return iter(())


def _carried_out(task: bytes, piece: bytes, threads: int, seconds: float, most_bytes: float) -> bytes:
    """Do a piece of work on a worker, and return its result or its error; runs there."""
    # Sums depend on the number of threads that share them.
    torch.set_num_threads(threads)
    known: Task = _unpacked(task)
    shared = (known, known.model)
    work = _unpacked(piece, shared)
    try:
        with watched(seconds, most_bytes):
            value = work()
        return _packed((value, None), shared)
    except (Exception, Exceeded) as error:
        return _packed((None, _portable(error)))


def _portable(error: BaseException) -> BaseException:
    """Return `error`, or its words where its class cannot be built again from what it holds."""
    try:
        _unpacked(_packed(error))
    except Exception:
        return Lost(first_line(error))
    return error


def _packed(value: object, shared: tuple[object, ...] = ()) -> bytes:
    """Return `value` as bytes, with the place in `shared` for each object that the other side has already."""
    from ray import cloudpickle

    places = {id(thing): place for place, thing in enumerate(shared)}

    class Pickler(cloudpickle.CloudPickler):
        def persistent_id(self, obj: object) -> int | None:
            return places.get(id(obj))

    buffer = io.BytesIO()
    Pickler(buffer).dump(value)
    return buffer.getvalue()


def _unpacked(content: bytes, shared: tuple[object, ...] = ()) -> Any:
    class Unpickler(pickle.Unpickler):
        def persistent_load(self, pid: int) -> object:
            return shared[pid]

    return Unpickler(io.BytesIO(content)).load()


def _children() -> frozenset[int]:
    return frozenset(child.pid for child in psutil.Process().children())


def _join(ray: Any) -> bool:
    """Join a cluster, or start one; return whether there is something to leave: not where the caller had joined.

    Raises:
        ArgumentError: if the cluster that was named does not answer.
    """
    if ray.is_initialized():
        return False
    named = os.environ.get("RAY_ADDRESS", "")
    check_answers(named)
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    with _same_handler(signal.SIGTERM):
        try:
            ray.init(address="auto", **quiet)
        except ConnectionError as error:
            if named:
                raise ArgumentError(
                    f"The Ray cluster at RAY_ADDRESS={named} cannot be joined ({first_line(error)}). Start it with "
                    "`ray start` (where it asks for a token, set RAY_AUTH_MODE=token here too), or unset RAY_ADDRESS "
                    "to have one started here."
                ) from error
        else:
            return True
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers
        ray.init(address="local", num_cpus=usable_cores(), include_dashboard=False, **quiet)
    return True


def check_answers(address: str) -> None:
    """Refuse the address of a cluster where nobody answers, which Ray would go on asking for many minutes.

    Args:
        address: such as `10.0.0.5:6379` or `ray://head:10001`; words such as `auto` are left to Ray.

    Raises:
        ArgumentError: if no connection can be made.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except OSError as error:
        raise ArgumentError(
            f"No Ray cluster answers at RAY_ADDRESS={address} ({first_line(error)}). Start it with `ray start`, or "
            "unset RAY_ADDRESS to have one started here."
        ) from error


@contextmanager
def _same_handler(number: int) -> Iterator[None]:
    """Keep the handler of a signal, which Ray replaces by one that ends the process."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(number, before)


def _register_own_modules() -> list[ModuleType]:
    """Let classes travel whole whose modules no worker could import by name, such as those of `file.py:build`."""
    from ray import cloudpickle

    known = {"__main__", *cloudpickle.list_registry_pickle_by_value()}
    files = {
        name: module
        for name, module in tuple(sys.modules.items())
        if str(getattr(module, "__file__", "")).endswith(".py") and module.__name__ == name
    }
    missing = [name for name in files if name not in known and not _is_found(name.partition(".")[0])]
    for name in missing:
        cloudpickle.register_pickle_by_value(files[name])
    return [files[name] for name in missing]


def _is_found(name: str) -> bool:
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return any(finder.find_spec(name, None) is not None for finder in finders)
