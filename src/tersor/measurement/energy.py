"""Energy that the processor reports, where the system lets this process read it."""

from collections.abc import Mapping
from pathlib import Path

#: Where Linux shows the counters of the processor packages (RAPL: running average power limit).
POWERCAP = Path("/sys/class/powercap")


def energy_missing(root: Path = POWERCAP) -> str:
    """Return why energy cannot be measured here; empty where it can.

    Example:
        >>> energy_missing(Path("/no such folder"))
        'this system shows no energy counters of the processor (/no such folder)'
    """
    packages = _packages(root)
    if not packages:
        return f"this system shows no energy counters of the processor ({root})"
    try:
        read_energy(root)
    except OSError:
        return f"{packages[0] / 'energy_uj'} may be read by root only"
    return ""


def read_energy(root: Path = POWERCAP) -> Mapping[str, int]:
    """Return the counter of each processor package, microjoules.

    Raises:
        OSError: if a counter may not be read.
    """
    return {package.name: int((package / "energy_uj").read_text()) for package in _packages(root)}


def joules_since(before: Mapping[str, int], root: Path = POWERCAP) -> float:
    """Return what all packages have used since `before`; a counter that has run over is followed.

    It is the energy of the whole package: of every process, and of idle cores too.

    Raises:
        OSError: if a counter may not be read.
    """
    now, used = read_energy(root), 0
    for name, start in before.items():
        spent = now[name] - start
        used += spent if spent >= 0 else spent + int((root / name / "max_energy_range_uj").read_text())
    return used / 1e6


def _packages(root: Path) -> list[Path]:
    """Return the folders of whole packages; their parts have a second number and would count twice."""
    return sorted(path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1)
