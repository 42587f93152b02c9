"""Upper limits of size, latency and memory, with their units."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf, isfinite

from tersor._check import one_of
from tersor.errors import ArgumentError
from tersor.exporting.artefact import Artefact
from tersor.measurement.result import Measurement

_BYTES = {
    "B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30,
}  # fmt: skip
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}
#: Limit -> its units and an example.
_UNITS = {"size": (_BYTES, "1MB"), "latency": (_SECONDS, "2ms"), "memory": (_BYTES, "200MB")}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([a-zA-Zµμ]+)")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model may take at most; infinite where nothing was said.

    Attributes:
        size: bytes of everything that is shipped.
        latency: median duration of a call, seconds.
        memory: peak resident memory of a process that runs it, above an empty one, bytes.
    """

    size: float = inf
    latency: float = inf
    memory: float = inf

    def __bool__(self) -> bool:
        return self != Limits()

    def __str__(self) -> str:
        return ", ".join(f"{name} <= {_written(name, value)}" for name, value in self.stated().items())

    def stated(self) -> dict[str, float]:
        """Return the limits that were given, in bytes and seconds."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value < inf}

    def exceeded(self, artefact: Artefact, measured: Measurement) -> str:
        """Return which limits a file exceeds, in words with numbers; empty if none."""
        taken = {
            "size": artefact.size_bytes,
            "latency": measured.median_s,
            "memory": measured.peak_bytes,
        }
        return ", ".join(
            f"{name} {_written(name, taken[name])}, where {_written(name, most)} is allowed"
            for name, most in self.stated().items()
            if taken[name] > most
        )


def parse_limits(limits: Mapping[str, str]) -> Limits:
    """Read limits such as `{"size": "1MB", "latency": "2ms"}`.

    Raises:
        ArgumentError: if a name or a unit is unknown, or a value is no positive quantity.

    Example:
        >>> parse_limits({"size": "1.5 MiB", "latency": "500us"})
        Limits(size=1572864.0, latency=0.0005, memory=inf)
    """
    return Limits(
        **{one_of("limits", name, _UNITS): _quantity(name, value) for name, value in limits.items()}
    )


def parse_bytes(name: str, value: str | float) -> float:
    """Read an amount of memory: `"2GB"`, or bytes as a number.

    Raises:
        ArgumentError: if it is neither.

    Example:
        >>> parse_bytes("max_memory", "2GB")
        2000000000.0
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < inf:
        return float(value)
    return _read(name, str(value), _BYTES, "2GB")


def _quantity(name: str, value: object) -> float:
    units, example = _UNITS[name]
    return _read(f"limits[{name!r}]", str(value), units, example)


def _read(name: str, text: str, units: Mapping[str, float], example: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    amount = float(match[1]) * units.get(match[2], 0.0) if match else 0.0
    if not 0 < amount < inf or not isfinite(amount):
        raise ArgumentError(
            f"`{name}` is a number with a unit such as {example!r} ({', '.join(units)}), got {text!r}."
        )
    return amount


def _written(name: str, value: float) -> str:
    if _UNITS[name][0] is _SECONDS:
        return f"{1e3 * value:.3g} ms"
    return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB"
