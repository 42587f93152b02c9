"""Samples whose answer changed, for a report that was asked to show them: they are the user's data."""

import base64
import struct
import zlib

import numpy as np
import torch
from torch import Tensor

from tersor.exporting.artefact import Artefact
from tersor.exporting.opening import open_artefact
from tersor.loading.inputs import flatten, to_numpy
from tersor.loading.task import Batch
from tersor.reporting.details import ChangedAnswer
from tersor.search.candidate import Candidate
from tersor.search.run import Run

#: Samples that are looked at, and the longest side of a thumbnail, in pixels.
_LOOKED_AT, _SIDE = 4096, 32
#: Longest picture in a record, in characters; longer ones are left out.
_LONGEST = 3900


def changed_answers(run: Run, answer: Candidate, count: int) -> tuple[ChangedAnswer, ...]:
    """Return up to `count` samples of the search split that original and answer class differently, the lost ones first.

    Empty where outputs are not one row of classes a sample.
    """
    base, shipped = run.base.artefact, answer.artefact
    if count < 1 or answer is run.base or base is None or shipped is None:
        return ()
    before, after = _session(base), _session(shipped)
    lost: list[ChangedAnswer] = []
    other: list[ChangedAnswer] = []
    for batch in run.task.search.batches(64, limit=_LOOKED_AT):
        arrays = to_numpy(batch.inputs)
        old, new = (torch.from_numpy(session(arrays)[0]) for session in (before, after))
        if old.dim() != 2 or old.shape[1] < 2:
            return ()
        for place in torch.nonzero(old.argmax(1) != new.argmax(1)).flatten().tolist():
            found = _answer(batch, place, int(old[place].argmax()), int(new[place].argmax()))
            (lost if found.target == found.before else other).append(found)
    return tuple((*lost, *other)[:count])


def _session(artefact: Artefact):
    return open_artefact(artefact, threads=1)


def _answer(batch: Batch, place: int, before: int, after: int) -> ChangedAnswer:
    target = "" if batch.target is None or batch.target.dim() != 1 else str(int(batch.target[place]))
    first = flatten(batch.inputs)[0][place]
    return ChangedAnswer(
        sample=str(batch.ids[place]),
        target=target,
        before=str(before),
        after=str(after),
        picture=thumbnail(first) if is_image(first) else "",
    )


def is_image(sample: Tensor) -> bool:
    """Whether a sample has the shape of a picture: one or three channels, and two sides of at least four pixels.

    Example:
        >>> is_image(torch.zeros(3, 8, 8)), is_image(torch.zeros(12))
        (True, False)
    """
    return sample.dim() == 3 and sample.shape[0] in (1, 3) and min(sample.shape[1:]) >= 4


def thumbnail(sample: Tensor) -> str:
    """Return a small PNG of a picture as a data address, stretched to the full range; empty if it would be long.

    Example:
        >>> thumbnail(torch.zeros(1, 8, 8))[:22]
        'data:image/png;base64,'
    """
    step = max(1, -(-max(sample.shape[1:]) // _SIDE))
    pixels = sample[:, ::step, ::step].detach().float().cpu()
    low, high = pixels.min(), pixels.max()
    scaled = (255 * (pixels - low) / (high - low).clamp_min(1e-12)).round().to(torch.uint8)
    text = "data:image/png;base64," + base64.b64encode(_png(scaled.permute(1, 2, 0).numpy())).decode()
    return text if len(text) <= _LONGEST else ""


def _png(pixels: np.ndarray) -> bytes:
    """Write rows of gray or color bytes as PNG, section 11.2 of its specification: header, one data block, end."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    kind = 0 if channels == 1 else 2
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    blocks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in blocks
    )
