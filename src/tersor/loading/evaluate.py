"""Take a metric of a model over a split."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tersor.errors import DataError
from tersor.loading.inputs import call, device_of, main_output, map_tensors
from tersor.loading.metric import Metric
from tersor.loading.task import Batch, Split


@dataclass(frozen=True, slots=True)
class Loader:
    """A split in the form that training scripts know: batches (x, y), (x1, x2, y) or (dict, y); x alone without labels.

    Attributes:
        split: the samples.
        size: samples per batch.
        limit: stop after this many samples.
    """

    split: Split
    size: int = 256
    limit: int | None = None

    def __iter__(self) -> Iterator[Any]:
        for batch in self.split.batches(self.size, limit=self.limit):
            parts: list[Any] = [batch.inputs] if isinstance(batch.inputs, dict) else list(batch.inputs)
            parts += [] if batch.target is None else [batch.target]
            yield tuple(parts) if len(parts) > 1 else parts[0]

    def __len__(self) -> int:
        samples = len(self.split) if self.limit is None else min(self.limit, len(self.split))
        return -(-samples // self.size)


def evaluate(
    metric: Metric,
    model: nn.Module | Callable[..., Any],
    split: Split,
    *,
    size: int = 256,
    limit: int | None = None,
) -> float:
    """Return the metric of `model` over `split`.

    Metrics that decompose are taken batch by batch; for the others all outputs are held in memory.

    Args:
        metric: what to take.
        model: a module in eval mode, or anything called like it.
        split: the samples.
        size: samples per batch.
        limit: take only this many samples.

    Returns:
        The metric in its own unit and direction.

    Raises:
        DataError: if the split is empty or has no targets.
    """
    if metric.of_model is not None:
        return metric.of_model(model, Loader(split, size, limit))
    answered = _answered(model, split, size, limit)
    if metric.scores is None:
        outputs, targets = zip(*answered, strict=True) if len(split) else ((), ())
        if not outputs:
            raise DataError(
                f"The {split.name} split is empty, so there is nothing to take {metric.name!r} of."
            )
        return metric.value(torch.cat(outputs), torch.cat(targets))
    total, count = 0.0, 0
    for output, target in answered:
        scores = metric.scores(output, target)
        total, count = total + float(scores.sum(dtype=torch.float64)), count + len(scores)
    if not count:
        raise DataError(f"The {split.name} split is empty, so there is nothing to take {metric.name!r} of.")
    return total / count if metric.higher_is_better else -total / count


def _answered(
    model: nn.Module | Callable[..., Any], split: Split, size: int, limit: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    device = device_of(model) if isinstance(model, nn.Module) else torch.device("cpu")
    for batch in split.batches(size, limit=limit):
        with torch.no_grad():
            output = main_output(call(model, map_tensors(lambda t: t.to(device), batch.inputs)))
        yield output.cpu(), _target(batch, split)


def _target(batch: Batch, split: Split) -> Tensor:
    if batch.target is None:
        raise DataError(f"The {split.name} split has no targets.")
    return batch.target
