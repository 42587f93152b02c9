"""Latencies of copies, kept from one search to the next: they depend on machine, runtime and shapes alone."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tersor.measurement.machine import this_machine
from tersor.planning.cost_model import Features
from tersor.search.prices import Seen
from tersor.search.run import Run


def place() -> Path:
    """Return the folder of the user's cache: `$XDG_CACHE_HOME/tersor`, or `~/.cache/tersor`."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "tersor" / "latency"


@dataclass(frozen=True, slots=True)
class Pricebook:
    """Measured models of one network shape on one machine in one runtime and setting.

    Attributes:
        path: its file.
    """

    path: Path

    @classmethod
    def of(cls, run: Run, whole: Mapping[str, Features], *, factors: bool = False) -> "Pricebook":
        """Return the book of a search.

        Args:
            run: the search.
            whole: what the original does in each precision.
            factors: whether copies with factorized layers are in it.
        """
        machine, request = this_machine(), run.request
        identity = {
            "processor": machine.processor,
            "features": machine.features,
            "versions": dict(machine.versions),
            "runtime": request.target,
            "threads": request.threads,
            "batch": request.call_size,
            "factors": factors,
            "shapes": {
                precision: dict(sorted(amounts.items())) for precision, amounts in sorted(whole.items())
            },
        }
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
        return cls(place() / f"{key}.json")

    def read(self) -> tuple[Seen, ...]:
        """Return what was measured before; nothing where there is no book, or it cannot be read."""
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            return tuple(Seen(row["amounts"], float(row["seconds"])) for row in rows)
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    def write(self, seen: Sequence[Seen]) -> None:
        """Keep measured models; a place that cannot be written to is left alone."""
        rows = [{"amounts": dict(s.amounts), "seconds": s.seconds} for s in seen]
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.path.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(rows), encoding="utf-8")
            fresh.replace(self.path)
