"""The noun of the loading room: a Task is what the user cares about."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from tersor.loading.inputs import Inputs
from tersor.loading.metric import Metric


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that go through the model together.

    Attributes:
        inputs: what `forward` takes; the first axis of every tensor is the batch.
        target: what the metric and the loss compare with, or None without labels.
        ids: one stable number per sample, the same in every epoch and process.
    """

    inputs: Inputs
    target: Tensor | None
    ids: tuple[int, ...]


class Split(Protocol):
    """A named part of the data that can be walked any number of times."""

    @property
    def name(self) -> str:
        """`train`, `calibration`, `search` or `certification`."""
        ...

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def batches(self, size: int, *, shuffle: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Yield batches of `size` samples; the last may be shorter.

        Args:
            size: samples per batch.
            shuffle: seed of the order; None keeps the stored order.
            limit: stop after this many samples (the first ones of the order).
        """
        ...


@dataclass(frozen=True)
class Task:
    """What the user cares about: the model, the data in four parts, and how quality is measured.

    Attributes:
        model: the user's module, in eval mode, never changed.
        train: samples for recovery training; may be empty.
        calibration: samples for statistics and ranges, drawn from train unless given; labels are not used.
        search: samples that choose between candidates; they carry no guarantee.
        certification: sealed samples, none of which is in another part; only the certification room reads them.
        metric: how quality is measured, with its direction.
        loss: scalar training loss of (model output, target); None without labels.
        inputs: a small real batch (two samples where there are two) to trace, export and compare with.
        kind: `classification`, `multilabel`, `regression`, `segmentation`, `tokens`, `language` or `fidelity`.
        drawn: reference that draws the inputs at random, where they are no data of the user's; empty for data.
    """

    model: nn.Module
    train: Split
    calibration: Split
    search: Split
    certification: Split
    metric: Metric
    loss: Callable[[Tensor, Tensor], Tensor] | None
    inputs: Inputs
    kind: str
    drawn: str = ""
