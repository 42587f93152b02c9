"""The ledger of the sealed data: an append-only file, one JSON object a line, each line chained to the one before.

It also keeps the error budget: attempt j on the same data may use alpha * 6 / (pi^2 j^2) divided by the number of
transcripts on which the user could have gone on, so that all attempts together err with probability at most alpha.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from tersor.errors import CertificateError

_START = "0" * 64


class Continuation(Enum):
    """When the same sealed data may be asked again; chosen when the ledger begins."""

    UNTIL_PASS = "only while nothing has been certified"
    ALWAYS = "also after a certificate was shown"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to certify a frozen list of finalists.

    Attributes:
        number: 1 for the first attempt on this data.
        transcripts: number of things the user may have seen before this attempt.
        alpha: probability of a false certificate that this attempt may spend.
        open: whether the rule of the ledger still allows attempts.
    """

    number: int
    transcripts: int
    alpha: float
    open: bool = True


def attempt_alpha(alpha: float, number: int, transcripts: int = 1) -> float:
    r"""Return $\alpha \cdot 6 / (\pi^2 j^2 T_j)$; over all attempts and transcripts these add up to at most alpha.

    Args:
        alpha: probability of a false certificate that all attempts together may have.
        number: number j of the attempt, from 1.
        transcripts: number T of answers that earlier attempts could have shown.

    Example:
        >>> round(attempt_alpha(0.05, 1), 4), round(attempt_alpha(0.05, 2, transcripts=9), 5)
        (0.0304, 0.00084)
    """
    return alpha * 6 / (math.pi * number) ** 2 / transcripts


class Ledger:
    """An append-only, hash-chained record of everything that touched the sealed data.

    Keep one ledger for one set of certification data, wherever the results go. Nothing can stop someone from
    deleting it; what it does is to make every edit of it visible.

    Args:
        path: the file; it begins with the first entry.
        continuation: the rule for going on after a certificate; fixed by the first entry.

    Raises:
        CertificateError: if the file was edited.

    Example:
        >>> import tempfile
        >>> ledger = Ledger(Path(tempfile.mkdtemp()) / "ledger.jsonl")
        >>> ledger.append("note", text="hello")
        >>> [entry["event"] for entry in ledger.entries()]
        ['begin', 'note']
    """

    def __init__(self, path: str | Path, *, continuation: Continuation = Continuation.UNTIL_PASS) -> None:
        self.path = Path(path)
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(_START, {"event": "begin", "schema": 1, "continuation": continuation.name})
        self.continuation = Continuation[self.entries()[0]["continuation"]]

    def entries(self) -> list[dict[str, Any]]:
        """Return all entries, oldest first.

        Raises:
            CertificateError: if a line does not follow from the one before.
        """
        return read_ledger(self.path)[0]

    def append(self, event: str, **facts: Any) -> None:
        """Add one line. JSON values only."""
        _, last = read_ledger(self.path)
        self._write(last, {"event": event, **facts})

    def _write(self, last: str, entry: Mapping[str, Any]) -> None:
        stamped = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **entry}
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(_line(last, stamped) + "\n")

    def next_attempt(self, data_sha256: str, alpha: float) -> Attempt:
        """Return the attempt that would come next on this data, without recording it.

        Attempts on data that shares samples with it count as well. An attempt that broke off may have shown at which
        finalist it did, and is charged for that.
        """
        entries = self.entries()
        related = _related(entries, data_sha256)
        begun = [e for e in entries if e["event"] == "attempt" and e["data_sha256"] in related]
        ended = [e for e in entries if e["event"] == "outcome" and e["data_sha256"] in related]
        transcripts = math.prod(self._answers(entry, ended) for entry in begun)
        passed = any(entry["passed"] for entry in ended)
        closed = passed and self.continuation is Continuation.UNTIL_PASS
        number = len(begun) + 1
        return Attempt(number, transcripts, attempt_alpha(alpha, number, transcripts), not closed)

    def _answers(self, attempt: Mapping[str, Any], ended: list[dict[str, Any]]) -> int:
        """Return how many different things an attempt could have shown to someone who goes on after it."""
        places = len(attempt["finalists"]) + 1
        if self.continuation is Continuation.ALWAYS:
            return places * attempt["values_shown"]
        key = ("data_sha256", "number")
        came_to_an_end = any(all(end[k] == attempt[k] for k in key) for end in ended)
        return 1 if came_to_an_end else places

    def same_attempt(self, question: Mapping[str, Any]) -> Attempt | None:
        """Return the earlier attempt that asked exactly this `question`; asking it again reveals nothing new."""
        for entry in self.entries():
            if entry["event"] == "attempt" and all(
                entry.get(key) == value for key, value in question.items()
            ):
                return Attempt(entry["number"], entry["transcripts"], entry["alpha"])
        return None


def _related(entries: list[dict[str, Any]], data_sha256: str) -> set[str]:
    """Return the hashes of all data in the ledger that share a recorded sample with this data, itself included."""
    sketches = {e["data_sha256"]: set(e["smallest"]) for e in entries if e["event"] == "hash"}
    mine = sketches.get(data_sha256, set())
    return {data_sha256, *(other for other, smallest in sketches.items() if smallest & mine)}


def _line(last: str, entry: Mapping[str, Any]) -> str:
    """Return one line. There is a single way to write an entry, so that any changed byte shows."""
    digest = hashlib.sha256((last + json.dumps(entry, sort_keys=True)).encode()).hexdigest()
    return json.dumps({"previous": last, "entry": entry, "hash": digest}, sort_keys=True)


def read_ledger(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the entries of a ledger and the hash of its last line.

    Raises:
        CertificateError: if the file is missing, or was edited, naming the first line that does not fit.
    """
    if not path.is_file():
        raise CertificateError(f"There is no ledger at {path}. Start one with `Ledger(path)`.")
    entries: list[dict[str, Any]] = []
    last = _START
    *lines, rest = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    for number, text in enumerate([*lines, rest] if rest or not lines else lines, start=1):
        try:
            line = json.loads(text)
            fits = text == _line(last, line["entry"]) and number <= len(lines)
        except (json.JSONDecodeError, KeyError, TypeError):
            fits = False
        if not fits:
            raise CertificateError(
                f"Line {number} of the ledger {path.name} does not follow from the line before: the file was edited. "
                "Its certificates count no longer; certify again on new data."
            )
        entries.append(line["entry"])
        last = line["hash"]
    return entries, last
