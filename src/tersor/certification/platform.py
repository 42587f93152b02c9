"""What a claim about an exported file depends on besides the file: the processor and the runtime."""

import platform
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from tersor.measurement.machine import this_machine


@dataclass(frozen=True, slots=True)
class Platform:
    """The part of a machine that decides which kernels run, and so how a file rounds.

    Attributes:
        processor: name of the processor.
        features: instruction sets that runtimes have kernels for, sorted; empty where the system does not tell.
        system: operating system and architecture.
        runtime: name of the runtime.
        runtime_version: its version; empty if it is not installed.
    """

    processor: str
    features: tuple[str, ...]
    system: str
    runtime: str
    runtime_version: str

    def differences(self, other: "Platform") -> tuple[str, ...]:
        """Return in words what could make the same file compute differently on `other`.

        Example:
            >>> here = this_platform("torch")
            >>> here.differences(here)
            ()
        """
        gone = sorted(set(self.features) - set(other.features))
        new = sorted(set(other.features) - set(self.features))
        lines = []
        if gone or new:
            lines.append(f"Processor features differ (missing here: {_list(gone)}; only here: {_list(new)}).")
        if self.system != other.system:
            lines.append(f"The system was {self.system}, here it is {other.system}.")
        then, now = self.runtime_version or "not installed", other.runtime_version or "not installed"
        if then != now:
            lines.append(f"{self.runtime} was {then}, here it is {now}.")
        return tuple(lines)


@cache
def this_platform(runtime: str) -> Platform:
    """Return the platform of this process, with the installed version of `runtime`.

    Example:
        >>> this_platform("no such runtime").runtime_version
        ''
    """
    machine = this_machine()
    system = f"{platform.system()} {platform.machine()}"
    return Platform(machine.processor, machine.features, system, runtime, _version(runtime))


def _version(runtime: str) -> str:
    try:
        return version(runtime.partition("-")[0].partition("_")[0])
    except PackageNotFoundError:
        return ""


def _list(words: list[str]) -> str:
    return ", ".join(words) or "none"
