"""A small sealed split, and contenders with a chosen number of samples lost and won."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from tersor.certification.certify import Certification, Contender, certify
from tersor.certification.ledger import Continuation, Ledger
from tersor.certification.seal import Seal
from tersor.loading.metric import Metric
from tersor.loading.task import Batch

SAMPLES = 2000


class Rows:
    """A split over arrays."""

    def __init__(self, inputs: torch.Tensor, target: torch.Tensor | None, name: str = "certification"):
        self.inputs, self.target, self.name = inputs, target, name

    def __len__(self):
        return len(self.inputs)

    def batches(self, size, *, shuffle=None, limit=None):
        order = torch.arange(len(self))
        if shuffle is not None:
            order = order[torch.randperm(len(self), generator=torch.Generator().manual_seed(shuffle))]
        for start in range(0, limit or len(self), size):
            rows = order[start : start + size]
            yield Batch(
                (self.inputs[rows],), None if self.target is None else self.target[rows], tuple(range(size))
            )


ACCURACY = Metric(
    "accuracy", value=lambda o, t: float((o.argmax(1) == t).float().mean()), scores=lambda o, t: o
)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Bench:
    """Certifies made-up contenders, and counts which of them were read."""

    folder: Path
    samples: int = SAMPLES
    continuation: Continuation = Continuation.UNTIL_PASS
    read: list[str] = field(default_factory=list)

    def __post_init__(self):
        torch.manual_seed(0)
        self.split = Rows(torch.randn(self.samples, 3), torch.zeros(self.samples, dtype=torch.long))
        self.ledger = Ledger(self.folder / "all.jsonl", continuation=self.continuation)
        self.seal = Seal(self.split, self.ledger)

    def contender(self, name: str, lost: int = 0, won: int = 0) -> Contender:
        """The base has nine tenths right; the contender loses and wins so many."""
        scores = np.ones(self.samples)
        scores[: self.samples // 10] = 0.0
        scores[-lost or self.samples :] = 0.0
        scores[:won] = 1.0
        return self.scored(name, lambda: scores)

    def scored(self, name: str, scores: Callable[[], np.ndarray]) -> Contender:
        def read() -> np.ndarray:
            self.read.append(name)
            return scores()

        return Contender(name, digest(name), read)

    def certify(self, finalists: Sequence[Contender], margin: float = 0.02, **options) -> Certification:
        options = {"metric": ACCURACY, "base": self.contender("base"), **options}
        return certify(options.pop("base"), finalists, seal=self.seal, margin=margin, **options)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture
def make_bench(tmp_path):
    made = []

    def make(**options):
        made.append(Bench(tmp_path / f"bench{len(made)}", **options))
        return made[-1]

    return make


@pytest.fixture(scope="session")
def make_split():
    return lambda inputs, name: Rows(inputs, None, name)
