"""How many steps down, and how much training after each, for the time there is."""

import copy
import time
from dataclasses import dataclass

import torch

from tersor.loading.inputs import call, main_output
from tersor.loading.task import Task
from tersor.search.clock import Clock

#: Shares of what could go at the goal that are tried, mild to bold.
FINE = (0.55, 0.3, 0.15, 0.05)
COARSE = (0.5, 0.2, 0.06)
#: Training steps after each cut when no budget is given: enough for a short annealed schedule.
_STEPS = 160
_BATCH = 128
#: Part of a candidate's time that training may take; the rest exports, rounds and evaluates.
_TRAINING_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Effort:
    """A schedule of cuts.

    Attributes:
        shares: share of what could go at the goal that is left after each step.
        epoch_s: measured time of one pass over the training split, student and teacher together; None when there is
            no budget to keep.
        epochs: passes after each cut without a budget.
    """

    shares: tuple[float, ...]
    epoch_s: float | None
    epochs: float

    def epochs_for(self, share: float, clock: Clock, parts: int) -> float:
        """Return the passes that fit an equal share of the time left for a network of `share` multiply-adds."""
        allowed = clock.share_s(parts)
        if allowed is None or self.epoch_s is None:
            return self.epochs
        # A third of a training step of the original is its forward pass, which the teacher always pays.
        cost = self.epoch_s * (0.25 + 0.75 * share)
        return min(4 * self.epochs, _TRAINING_SHARE * allowed / cost)


#: The effort of twins of the original: rounding, and a short training where it is needed.
FREE = Effort((1.0,), None, 0.0)


def plan_effort(task: Task, clock: Clock) -> Effort:
    """Return the schedule for this task: fixed without a budget, measured with one."""
    steps = max(1, -(-len(task.train) // _BATCH))
    epochs = min(20.0, max(1.0, _STEPS / steps))
    if clock.budget_s is None or not len(task.train):
        return Effort(FINE, None, epochs)
    epoch_s = steps * _step_s(task)
    roomy = clock.left_s > 3 * epoch_s
    return Effort(FINE if roomy else COARSE, epoch_s, epochs)


def _step_s(task: Task) -> float:
    """Return the time of one training step of the original with a forward pass of the teacher, in seconds."""
    model = copy.deepcopy(task.model).train()
    batch = next(task.train.batches(_BATCH))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        main_output(call(model, batch.inputs)).square().mean().backward()
        with torch.no_grad():
            call(task.model, batch.inputs)
        times.append(time.perf_counter() - start)
    return min(times)
