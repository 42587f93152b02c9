"""The Seal: the only way to the certification samples, open only inside an attempt, every access in the ledger."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from tersor.certification.ledger import Ledger
from tersor.errors import CertificateError, DataError
from tersor.exporting.artefact import Session
from tersor.loading.inputs import flatten, to_numpy
from tersor.loading.metric import Metric
from tersor.loading.task import Batch, Split, Task
from tersor.measurement.quality import evaluate, predict

_HASH_BATCH = 256
#: Seed of the order in which samples are walked when evaluation may stop early.
_WALK_SEED = 0
_SKETCH = 64


class Seal:
    """The certification split behind a lock. It is a `Split` itself, so that whatever reads a split can read it.

    Outside `opened` it gives no sample away. Its length is known before, for planning.

    Args:
        split: the certification samples.
        ledger: where every access is written.
        labelled: whether the targets are labels; False where they come from the base itself.
        drawn: reference that draws the inputs at random; empty for data.

    Raises:
        DataError: if the split is empty.
    """

    def __init__(self, split: Split, ledger: Ledger, *, labelled: bool = True, drawn: str = "") -> None:
        if not len(split):
            raise DataError(
                "The certification split is empty. Give it samples, or a larger share of the data."
            )
        self.ledger = ledger
        self.labelled = labelled
        self.drawn = drawn
        self._split = split
        self._reader = ""
        self._sha256 = ""

    @classmethod
    def of(cls, task: Task, ledger: Ledger) -> "Seal":
        """Return the certification samples of `task` behind their lock."""
        return cls(task.certification, ledger, labelled=task.kind != "fidelity", drawn=task.drawn)

    @property
    def name(self) -> str:
        """Name of the split."""
        return self._split.name

    def __len__(self) -> int:
        return len(self._split)

    @property
    def data_sha256(self) -> str:
        """Hash of all inputs and labels, whatever their order; computing it is an access, and is written.

        The ledger also keeps the smallest sample hashes, so that a part of the same data is recognized later.
        """
        if not self._sha256:
            samples = sorted(self._sample_hashes())
            self._sha256 = hashlib.sha256("".join(samples).encode()).hexdigest()
            smallest = samples[:_SKETCH]
            self.ledger.append("hash", data_sha256=self._sha256, samples=len(samples), smallest=smallest)
        return self._sha256

    def _sample_hashes(self) -> Iterator[str]:
        for batch in self._split.batches(_HASH_BATCH):
            labels = () if batch.target is None or not self.labelled else (batch.target,)
            arrays = [_bytes_of(tensor) for tensor in (*flatten(batch.inputs), *labels)]
            for sample in zip(*arrays, strict=True):
                yield hashlib.sha256(b"|".join(row.tobytes() for row in sample)).hexdigest()[:16]

    @contextmanager
    def opened(self, reader: str, sha256: str) -> Iterator[None]:
        """Let the file with hash `sha256` read the samples within the block, and write so."""
        self.ledger.append("access", data_sha256=self.data_sha256, reader=reader, reader_sha256=sha256)
        before, self._reader = self._reader, reader
        try:
            yield
        finally:
            self._reader = before

    def batches(self, size: int, *, shuffle: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Yield batches, as `Split.batches` does.

        Raises:
            CertificateError: if no attempt is under way.
        """
        if not self._reader:
            raise CertificateError(
                "The certification data is sealed: it is read only while `certify` tests a frozen finalist. "
                "Use the search split to choose between candidates."
            )
        return self._split.batches(size, shuffle=shuffle, limit=limit)

    def targets(self) -> Tensor:
        """Return the targets of all samples.

        Raises:
            CertificateError: if no attempt is under way.
            DataError: if the samples have no targets.
        """
        parts = [batch.target for batch in self.batches(_HASH_BATCH) if batch.target is not None]
        if not parts:
            raise DataError(
                "This metric is defined on a whole set and needs labels, and the certification split has none."
            )
        return torch.cat(parts)

    def reader(
        self, session: Session, *metrics: Metric, batch: int = 64
    ) -> Callable[[], dict[str, np.ndarray]]:
        """Return what `certify` calls to evaluate an opened file: scores, or outputs where samples have no score.

        Args:
            session: the opened file.
            metrics: what the demands measure.
            batch: samples in a call; the claim holds for this batch.
        """

        def rows(metric: Metric) -> np.ndarray:
            quality = None if metric.scores is None else evaluate(session, self, metric, batch=batch).scores
            return (predict(session, self, batch=batch)[0] if quality is None else quality).numpy()

        return lambda: {metric.name: rows(metric) for metric in metrics}

    def stream(
        self, session: Session, *metrics: Metric, batch: int = 64
    ) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
        """Return what `certify_all(..., early_stop=True)` calls: scores batch by batch, in an order drawn from a seed.

        A split that is itself a stream is shuffled within a window only; its samples must come in random order.

        Args:
            session: the opened file.
            metrics: what the demands measure; each has a score for every sample.
            batch: samples in a call; the claim holds for this batch.
        """

        def parts() -> Iterator[dict[str, np.ndarray]]:
            for part in self.batches(batch, shuffle=_WALK_SEED):
                outputs = torch.from_numpy(session(to_numpy(part.inputs))[0])
                yield {metric.name: _scores(metric, outputs, part.target) for metric in metrics}

        return parts


def _scores(metric: Metric, outputs: Tensor, target: Tensor | None) -> np.ndarray:
    if metric.scores is None or target is None:
        raise DataError(f"{metric.name} has no score for each sample, so evaluation cannot stop early.")
    return metric.scores(outputs, target).double().cpu().numpy()


def _bytes_of(tensor: Tensor) -> np.ndarray:
    """Return the bytes of each sample, shape (samples, bytes)."""
    content = tensor.detach().cpu().contiguous()
    return content.reshape(len(content), -1).view(torch.uint8).numpy()
