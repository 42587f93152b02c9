"""What a claim about an exported file depends on besides the file: the processor and the runtime."""

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: Instruction sets for which runtimes choose other kernels, and so round differently.
_DECISIVE = re.compile(r"^(sse4_2|avx\w*|fma|f16c|amx\w*|asimd\w*|i8mm|bf16|sve\w*|neon|fphp)$")


@dataclass(frozen=True, slots=True)
class Machine:
    """The part of a machine that decides which kernels run.

    Attributes:
        processor: name of the processor.
        features: instruction sets that runtimes look at, sorted; empty where the system does not tell.
        cores: logical processors.
        system: operating system and architecture.
        runtime: name of the runtime.
        runtime_version: its version; empty if it is not installed.
    """

    processor: str
    features: tuple[str, ...]
    cores: int
    system: str
    runtime: str
    runtime_version: str

    def differences(self, other: "Machine") -> tuple[str, ...]:
        """Return in words what could make the same file compute differently on `other`.

        Example:
            >>> here = this_machine("torch")
            >>> here.differences(here)
            ()
        """
        lines = []
        gone, new = (
            sorted(set(a) - set(b))
            for a, b in ((self.features, other.features), (other.features, self.features))
        )
        if gone or new:
            lines.append(f"processor features differ (missing here: {_list(gone)}; only here: {_list(new)})")
        for name in ("system", "runtime", "runtime_version"):
            then, now = getattr(self, name), getattr(other, name)
            if then != now:
                lines.append(
                    f"{name.replace('_', ' ')} was {then or 'unknown'}, here it is {now or 'not installed'}"
                )
        return tuple(lines)


def this_machine(runtime: str) -> Machine:
    """Return the machine that this process runs on, with the installed version of `runtime`.

    Example:
        >>> this_machine("no such runtime").runtime_version
        ''
    """
    processor, flags = _linux_processor()
    return Machine(
        processor=processor or platform.processor() or platform.machine(),
        features=tuple(sorted(flag for flag in flags if _DECISIVE.match(flag))),
        cores=os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        runtime=runtime,
        runtime_version=_version(runtime),
    )


def _linux_processor() -> tuple[str, set[str]]:
    """Return the name and all flags of the first processor; empty where there is no such file."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0] if path.is_file() else ""
    rows = {
        key.strip().lower(): value.strip()
        for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    return rows.get("model name", ""), set((rows.get("flags") or rows.get("features") or "").split())


def _version(runtime: str) -> str:
    try:
        return version(runtime.partition("-")[0])
    except PackageNotFoundError:
        return ""


def _list(words: list[str]) -> str:
    return ", ".join(words) or "none"
