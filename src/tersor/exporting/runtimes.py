"""The registry of runtimes: one dict, one decorator."""

from tersor.exporting.artefact import Runtime

RUNTIMES: dict[str, Runtime] = {}


def runtime(kind: type) -> type:
    """Register a runtime class under the name of its instances."""
    instance = kind()
    RUNTIMES[instance.name] = instance
    return kind
