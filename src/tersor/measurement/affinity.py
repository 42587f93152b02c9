"""Which processors the workers of a comparison share."""

import psutil


def quiet_cpus(threads: int) -> tuple[int, ...]:
    """Return the `threads` least busy processors that this process may use; all of them where it cannot bind.

    Base and candidate run in turns on the *same* processors, so that a busy neighbour slows both.
    """
    if not (psutil.LINUX or psutil.WINDOWS):
        return ()
    allowed = psutil.Process().cpu_affinity() or []
    if threads >= len(allowed):
        return tuple(allowed)
    load = psutil.cpu_percent(interval=0.1, percpu=True)
    return tuple(sorted(sorted(allowed, key=lambda cpu: load[cpu])[:threads]))
