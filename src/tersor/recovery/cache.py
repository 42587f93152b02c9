"""What the teacher answers, kept by sample id: computed once, then read."""

import hashlib
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tersor.distillation.sampled import draw_classes
from tersor.errors import DataError
from tersor.loading.inputs import map_tensors
from tersor.loading.task import Batch
from tersor.recovery.teacher import Teacher

#: Rows up to this size are stored in float32, larger ones in float16: 1,024 classes.
_WIDE_ROW_BYTES = 4096
_EMPTY = -1
#: Disk that a memory of a teacher may take.
MOST_BYTES = 8 * 2**30
#: Above this many classes a position, a memory of the teacher holds draws instead of logits.
LARGE = 4096


class TeacherCache:
    """A function of a batch that asks the teacher once for every sample id.

    Answers lie in a memory-mapped file, with the id of each row beside it; a row's id is written after the
    row, so a killed process leaves only whole rows, and the next one goes on. What is returned is
    always what is stored, so that the first pass and later ones teach the same.

    Args:
        teacher: answers where the cache cannot.
        capacity: number of distinct ids.
        folder: where to keep it, made if missing; None keeps it in a temporary folder.
        key: what the answers depend on besides the id (see `fingerprint`); another key is another file.
        most_bytes: most disk to take; the teacher is asked each time for samples beyond that.

    Example:
        >>> calls = []
        >>> def teacher(batch):
        ...     calls.append(batch.ids)
        ...     return 2 * batch.inputs[0]
        >>> cache = TeacherCache(teacher, capacity=4)
        >>> batch = Batch((torch.tensor([[1.0], [2.0]]),), None, (5, 9))
        >>> cache(batch).tolist() == cache(batch).tolist() == [[2.0], [4.0]]
        True
        >>> calls
        [(5, 9), (5, 9)]

    The second call is a check: the first batch that is found whole is asked once more, and ids that do not stand for
    one sample are noticed.
    """

    def __init__(
        self,
        teacher: Teacher,
        capacity: int,
        *,
        folder: Path | None = None,
        key: str = "teacher",
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="tersor-") if folder is None else None
        self._folder = Path(self._temporary.name) if self._temporary else Path(folder or ".")
        self._teacher, self._capacity, self._key = teacher, capacity, key
        self._most_bytes = most_bytes
        self._rows: dict[int, int] = {}
        self._ids: np.memmap | None = None
        self._answers: np.memmap | None = None
        self._checked = False
        self.stable = True

    def __call__(self, batch: Batch) -> Tensor:
        """Return the teacher's answers for the samples of `batch`."""
        if not self.stable:
            return self._teacher(batch)
        new = [index for index, sample in enumerate(batch.ids) if sample not in self._rows]
        if new:
            return self._completed(batch, new)
        if not self._checked:
            self._checked, answer = True, self._teacher(batch)
            if not _alike(self._read(batch.ids).to(answer), answer):
                self.stable = False
                return answer
        return self._read(batch.ids)

    def _completed(self, batch: Batch, new: list[int]) -> Tensor:
        """Return answers of which the teacher is asked for the new ones."""
        part = batch if len(new) == len(batch.ids) else _part(batch, new)
        answer = self._teacher(part)
        if self._store(part.ids, answer):
            return self._read(batch.ids)
        if part is batch:
            return answer
        answer, old = _plain(answer), [index for index in range(len(batch.ids)) if index not in set(new)]
        stored = self._read([batch.ids[index] for index in old])
        if stored.shape[1:] != answer.shape[1:]:
            return self._teacher(batch)
        whole = answer.new_empty((len(batch.ids), *answer.shape[1:]))
        whole[new], whole[old] = answer, stored
        return whole

    def _store(self, ids: Sequence[int], answer: Tensor) -> bool:
        """Write the rows that are new and fit; False where some are left."""
        values = _plain(answer).numpy()
        if self._answers is None:
            self._open(values.shape[1:], not answer.is_floating_point())
        if self._answers is None or self._ids is None or values.shape[1:] != self._answers.shape[1:]:
            return False
        for index, sample in enumerate(ids):
            if sample not in self._rows and (row := len(self._rows)) < self._capacity:
                self._answers[row] = values[index]
                self._ids[row] = sample
                self._rows[sample] = row
        return all(sample in self._rows for sample in ids)

    def _read(self, ids: Sequence[int]) -> Tensor:
        assert self._answers is not None
        rows = torch.from_numpy(self._answers[[self._rows[sample] for sample in ids]])
        return rows.float() if rows.is_floating_point() else rows

    def _open(self, shape: tuple[int, ...], whole: bool) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        kind = "i4" if whole else "f4" if 4 * math.prod(shape) <= _WIDE_ROW_BYTES else "f2"
        self._capacity = min(
            self._capacity, self._most_bytes // (np.dtype(kind).itemsize * math.prod(shape) + 8)
        )
        if not self._capacity:
            return
        stem = hashlib.sha256(f"{self._key}|{self._capacity}|{shape}|{kind}".encode()).hexdigest()[:16]
        file = self._folder / f"{stem}.answers"
        self._answers = _mapped(file, np.dtype(kind), (self._capacity, *shape), 0)
        self._ids = _mapped(self._folder / f"{stem}.ids", np.dtype("i8"), (self._capacity,), _EMPTY)
        # Ids may be any number but the mark of an empty row, and rows fill from the front.
        known = self._ids[: int(np.count_nonzero(self._ids != _EMPTY))]
        self._rows = {int(sample): row for row, sample in enumerate(known)}


def _plain(answer: Tensor) -> Tensor:
    return answer.detach().cpu().to(torch.float32 if answer.is_floating_point() else torch.int32)


def _part(batch: Batch, rows: list[int]) -> Batch:
    target = None if batch.target is None else batch.target[rows]
    inputs = map_tensors(lambda tensor: tensor[rows], batch.inputs)
    return Batch(inputs, target, tuple(batch.ids[row] for row in rows))


def wants_draws(task_kind: str | None, answer: Tensor) -> bool:
    """Say whether a memory of answers like this one holds draws: of language models with many words.

    Example:
        >>> wants_draws("language", torch.zeros(1, 1, 5000)), wants_draws("classification", torch.zeros(1, 5000))
        (True, False)
    """
    return task_kind in ("language", "tokens") and answer.shape[-1] > LARGE


def _alike(stored: Tensor, answer: Tensor) -> bool:
    """Say whether a teacher answers as before: a threaded one differs in the last bits, and float16 keeps 3 digits."""
    if answer.is_floating_point():
        return torch.allclose(stored, answer, rtol=1e-2, atol=1e-2)
    return (stored == answer).float().mean().item() > 0.99


def drawn(teacher: Teacher, draws: int = 50, seed: int = 0) -> Teacher:
    """Return the teacher with classes drawn from its distribution for answers, always the same for a sample id.

    Args:
        teacher: gives logits, class axis last.
        draws: classes for each position.
        seed: of the draws.

    Example:
        >>> logits = torch.tensor([[0.0, 60.0]])
        >>> drawn(lambda batch: logits, draws=3)(Batch((logits,), None, (7,))).tolist()
        [[1, 1, 1]]
    """

    def answer(batch: Batch) -> Tensor:
        def numbers(index: int) -> torch.Generator:
            return torch.Generator().manual_seed(hash((seed, batch.ids[index])) % 2**63)

        return draw_classes(teacher(batch), draws, numbers)

    return answer


def _mapped(path: Path, dtype: np.dtype, shape: tuple[int, ...], fill: int) -> np.memmap:
    size = dtype.itemsize * math.prod(shape)
    if path.exists():
        if path.stat().st_size != size:
            raise DataError(f"{path} is not a whole cache of teacher outputs. Delete it and run again.")
        return np.memmap(path, dtype, "r+", shape=shape)
    draft = path.with_suffix(path.suffix + ".draft")
    made = np.memmap(draft, dtype, "w+", shape=shape)
    if fill:
        made[:] = fill
    made.flush()
    draft.replace(path)
    return np.memmap(path, dtype, "r+", shape=shape)


def fingerprint(teacher: nn.Module, *more: object) -> str:
    """Return a hash of the teacher's weights and of `more`: data, transform, whatever changes its answers.

    Example:
        >>> fingerprint(nn.Identity(), "train", 8) == fingerprint(nn.Identity(), "train", 9)
        False
    """
    digest = hashlib.sha256(repr((type(teacher).__qualname__, more)).encode())
    for name, tensor in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
