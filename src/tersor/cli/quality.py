"""The quality of models on one part of the data, with the interval that the number of samples allows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from tersor.loading.task import Split, Task

Part: TypeAlias = Literal["search", "train", "calibration", "certification"]
#: Two-sided 95 per cent of a normal distribution.
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Judged:
    """A metric of a model over samples.

    Attributes:
        metric: its name.
        value: the metric, in its own unit.
        samples: how many it was taken over.
        scores: score of each sample, higher is better; None where the metric does not decompose.
    """

    metric: str
    value: float
    samples: int
    scores: "np.ndarray | None" = None

    @property
    def spread(self) -> float | None:
        """Half of the 95 per cent interval of the mean, by the central limit theorem; None for other metrics."""
        if self.scores is None or self.samples < 2:
            return None
        return _Z * float(self.scores.std(ddof=1)) / self.samples**0.5

    def words(self) -> str:
        """Return the metric in words.

        Example:
            >>> Judged("accuracy", 0.9, 100).words()
            'accuracy 0.9000 on 100 samples'
        """
        around = "" if self.spread is None else f" ± {self.spread:.4f} (95%)"
        return f"{self.metric} {self.value:.4f}{around} on {self.samples:,} samples"


def part_of(task: "Task", name: Part) -> "Split":
    """Return the part of the data called `name`."""
    return {
        "train": task.train,
        "calibration": task.calibration,
        "search": task.search,
        "certification": task.certification,
    }[name]


def judge(model: "nn.Module", task: "Task", part: Part = "search") -> Judged:
    """Return the metric of the task for `model` over one part of its data.

    Raises:
        DataError: if the part is empty or without targets.
    """
    from tersor.errors import DataError
    from tersor.loading.evaluate import evaluate

    split, metric = part_of(task, part), task.metric
    if not len(split):
        raise DataError(
            f"The {part} part of the data is empty. Choose another with --split, or give more data."
        )
    if metric.scores is None or metric.of_model is not None:
        return Judged(metric.name, evaluate(metric, model, split), len(split))
    scores = _scores(model, task, split)
    mean = float(scores.mean())
    return Judged(metric.name, mean if metric.higher_is_better else -mean, len(scores), scores)


def _scores(model: "nn.Module", task: "Task", split: "Split") -> "np.ndarray":
    import torch

    from tersor.errors import DataError
    from tersor.loading.inputs import call, main_output

    assert task.metric.scores is not None
    found = []
    with torch.no_grad():
        for batch in split.batches(64):
            if batch.target is None:
                raise DataError(f"The {split.name} part of the data has no targets.")
            found.append(task.metric.scores(main_output(call(model, batch.inputs)), batch.target).double())
    return torch.cat(found).numpy()


def difference(before: Judged, after: Judged) -> str:
    """Return how the metric changed, in words; paired where both have scores of the same samples."""
    change = after.value - before.value
    if before.scores is None or after.scores is None or len(before.scores) != len(after.scores):
        return f"{change:+.4f}"
    paired = Judged(before.metric, change, before.samples, after.scores - before.scores)
    return f"{change:+.4f} ± {paired.spread or 0.0:.4f} (95%, paired)"
