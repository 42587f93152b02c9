"""What a teacher adds to a training step: asked every time, or read from a warm cache."""

import statistics
import time
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from tersor.distillation.kl import KL
from tersor.loading.inputs import call
from tersor.optimizers.sgd import SGD
from tersor.recovery.cache import TeacherCache
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.loop import fit
from tersor.recovery.settings import Settings
from tersor.recovery.teacher import imitation, live


def overhead(
    student: nn.Module, teacher: nn.Module, split: InMemory, steps: int = 4, rounds: int = 5
) -> dict:
    """Return the share that the teacher adds to a step of the student with labels, median of interleaved rounds."""
    few = InMemory(split.inputs[: 128 * steps], split.target[: 128 * steps])
    cache = TeacherCache(live(teacher), len(few))
    for batch in Epochs(few, 128, 2):
        cache(batch)  # the second pass makes it check itself

    def labels(model: nn.Module, batch) -> torch.Tensor:
        return F.cross_entropy(call(model, batch.inputs), batch.target)

    ways = {"labels": labels, "cached": imitation(cache, KL()), "live": imitation(live(teacher), KL())}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, objective in ways.items():
            marks: list[float] = []
            settings = Settings(on_step=lambda *_, marks=marks: marks.append(time.perf_counter()))
            fit(student, Epochs(few, 128, 1), objective=objective, optimizer=SGD(lr=1e-6), settings=settings)
            times[name] += [b - a for a, b in pairwise(marks)]
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {name: middle[name] / middle["labels"] - 1 for name in ("cached", "live")}
