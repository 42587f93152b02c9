"""The Machine: what a measurement depends on besides the file."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path

import psutil

_PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "executorch", "numpy")
#: Instruction sets for which runtimes have kernels of their own.
_FEATURES = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512",
    "avx_vnni",
    "amx",
    "asimd",
    "i8mm",
    "bf16",
    "sve",
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a measurement depends on besides the file; plain data.

    Attributes:
        processor: model name of the processor.
        features: instruction sets that runtimes have kernels for, sorted.
        cores: logical processors that this process may use.
        quota: processors' worth of time that a container may use; None without a limit.
        memory_bytes: memory that this process may use.
        governor: how the system sets the clock, such as `performance`; empty where it does not tell.
        load: processes that wanted to run, mean over the last minute.
        system: operating system and architecture.
        versions: package -> version, of what is installed of torch and the runtimes.
    """

    processor: str
    features: tuple[str, ...]
    cores: int
    quota: float | None
    memory_bytes: int
    governor: str
    load: float
    system: str
    versions: Mapping[str, str]


def this_machine() -> Machine:
    """Return the machine that this process runs on, as it is now.

    Example:
        >>> this_machine().cores >= 1
        True
    """
    name, flags = _processor()
    return Machine(
        processor=name or platform.processor() or platform.machine(),
        features=tuple(sorted(flag for flag in flags if flag.startswith(_FEATURES))),
        cores=_allowed_cores(),
        quota=_quota(),
        memory_bytes=_memory_bytes(),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        load=psutil.getloadavg()[0],
        system=f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}",
        versions=_versions(),
    )


def usable_cores() -> int:
    """Return how many threads can run at once: the allowed processors, or the quota of a container."""
    quota = _quota()
    return _allowed_cores() if quota is None else max(1, min(_allowed_cores(), ceil(quota)))


def _allowed_cores() -> int:
    if psutil.LINUX or psutil.WINDOWS:
        return len(psutil.Process().cpu_affinity() or [0])
    return os.cpu_count() or 1


def _read(path: str) -> str:
    """Return the text of a system file; empty where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _processor() -> tuple[str, set[str]]:
    """Return the name and the flags of the first processor; empty where the system has no such file."""
    first = _read("/proc/cpuinfo").partition("\n\n")[0]
    rows = {
        key.strip().lower(): value.strip() for key, _, value in (r.partition(":") for r in first.splitlines())
    }
    return rows.get("model name", ""), set((rows.get("flags") or rows.get("features") or "").split())


def _quota() -> float | None:
    """Return the processor limit of the control group: `cpu.max` holds quota and period in microseconds."""
    allowed, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    return int(allowed) / int(period) if allowed.isdigit() and period.isdigit() else None


def _memory_bytes() -> int:
    limit = _read("/sys/fs/cgroup/memory.max")
    total = psutil.virtual_memory().total
    return min(total, int(limit)) if limit.isdigit() else total


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
