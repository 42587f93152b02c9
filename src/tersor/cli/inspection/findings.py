"""The nouns of an inspection: what a file holds, and whether opening it could run code."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum


class Safety(Enum):
    """Whether opening the file could run code; the value is what to tell the reader."""

    DATA = "data only: opening it runs no code"
    CODE = "can run code when it is opened: open it only if you made it yourself"
    BROKEN = "damaged or dishonest: do not open it"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One array in a file."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What one format found.

    Attributes:
        kind: the format, in words.
        safety: whether opening the file could run code.
        reasons: why, one sentence each; empty where the format alone says it.
        facts: what is in it, in words.
        tensors: the arrays in it.
        advice: how to use it with tersor.
    """

    kind: str
    safety: Safety
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    tensors: tuple[TensorEntry, ...] = ()
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A file, looked into without being run.

    Attributes:
        path: the file, as it was given.
        size_bytes: its size; for a folder that of everything in it.
        sha256: its hash; empty for a folder.
        content: what is in it.
    """

    path: str
    size_bytes: int
    sha256: str
    content: Content

    @property
    def safe(self) -> bool:
        """Whether opening it runs no code."""
        return self.content.safety is Safety.DATA

    def to_json(self) -> str:
        """Return the inspection as indented JSON."""
        values = asdict(self)
        content = values.pop("content")
        content["verdict"] = self.content.safety.value
        content["safety"] = self.content.safety.name.lower()
        return json.dumps({**values, "safe": self.safe, **content}, indent=1)
