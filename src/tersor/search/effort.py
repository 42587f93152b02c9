"""How many steps down, and how much training after each, for the time there is."""

import copy
import math
import time
from dataclasses import dataclass, replace

import torch

from tersor.loading.task import Task
from tersor.recovery.arithmetic import PLAIN, Arithmetic, quickest
from tersor.search.clock import Clock

#: Shares of what could go at the goal that are tried, mild to bold.
FINE = (0.55, 0.3, 0.15, 0.05)
COARSE = (0.5, 0.2, 0.06)
BOLD = (0.2,)
#: Where the time is for few passes over the training samples in all: a bold step would not come back.
MILD = (0.7, 0.5, 0.4)
_FEW_PASSES = 12.0
#: What a step takes besides its training, in seconds, and for how many of them few or many steps are planned.
_STEP_S, _TIGHT, _ROOMY = 15.0, 6, 12
#: Training steps after each cut when no budget is given: enough for a short annealed schedule.
_STEPS = 160
#: Samples of a training step, where there are enough for `_LEAST` steps in a pass.
_BATCH, _LEAST = 128, 4
#: A step that takes so many seconds is not timed again: what the first one takes besides is little of it.
_SLOW_S = 1.0
#: A candidate is trained for at most this many times the passes that it gets without a budget.
_MOST = 16
#: Part of a candidate's time that training may take; the rest exports, rounds and evaluates.
_TRAINING_SHARE = 0.7
#: Part of the time left that is kept for integers at most.
_TWINS_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class Effort:
    """A schedule of cuts.

    Attributes:
        shares: share of what could go at the goal that is left after each step.
        epoch_s: measured time of one pass over the training split, student and teacher together; None when there is
            no budget to keep.
        epochs: passes after each cut without a budget.
        twins_s: seconds that the integers of a network take, which are made after its training.
    """

    shares: tuple[float, ...]
    epoch_s: float | None
    epochs: float
    twins_s: float = 0.0

    @property
    def short(self) -> bool:
        """Whether there is time for few passes over the training samples in all."""
        return self.shares == MILD

    def epochs_for(self, share: float, clock: Clock, part: float, least: float = 0.0) -> float:
        """Return the passes that fit a part of the time left for a network of `share` multiply-adds.

        Where these are fewer than `least`, more of the time left is taken: half a training tells nothing.

        Example:
            >>> effort, clock = Effort(MILD, epoch_s=100.0, epochs=1.0), Clock(1000.0, reserve_s=0.0)
            >>> [round(effort.epochs_for(1.0, clock, 0.2, least), 1) for least in (0.0, 3.0, 30.0)]
            [1.4, 3.0, 7.0]
            >>> round(replace(effort, twins_s=500.0).epochs_for(1.0, clock, 0.2, least=30.0), 1)
            3.5
        """
        if clock.budget_s is None or self.epoch_s is None:
            return self.epochs
        left_s = max(0.0, clock.left_s)
        free_s = left_s - min(self.twins_s, _TWINS_SHARE * left_s)
        fits = _TRAINING_SHARE * free_s / (self.epoch_s * _cost(share))
        return min(_MOST * self.epochs, max(part * fits, min(least, fits)))

    def observed(self, share: float, epochs: float, seconds: float) -> "Effort":
        """Return the effort with the time of a pass as a training showed it: machines and overheads differ.

        Example:
            >>> Effort(FINE, epoch_s=1.0, epochs=2.0).observed(1.0, epochs=4.0, seconds=12.0).epoch_s
            3.0

        A quicker pass, because the original was asked before, is trusted down to half of what was planned.
        """
        if self.epoch_s is None or epochs <= 0:
            return self
        return replace(self, epoch_s=max(0.5 * self.epoch_s, seconds / (epochs * _cost(share))))


def _cost(share: float) -> float:
    """Return the cost of a training step of a network of `share` multiply-adds, against one of the original."""
    # A third of a training step of the original is its forward pass, which the teacher always pays.
    return 0.25 + 0.75 * share


def batch_of(task: Task) -> int:
    """Return the samples of a training step: fewer where a pass would have less than four steps."""
    return min(_BATCH, max(1, len(task.train) // _LEAST)) if len(task.train) else _BATCH


def steps_in(task: Task, epochs: float) -> float:
    """Return the training steps of so many passes."""
    return epochs * len(task.train) / batch_of(task)


#: The effort of twins of the original: rounding, and a short training where it is needed.
FREE = Effort((1.0,), None, 0.0)


def quickest_for(task: Task, clock: Clock) -> Arithmetic:
    """Return how trainings compute: as is quickest here where time counts, else the same way everywhere."""
    if clock.budget_s is None or not len(task.train):
        return PLAIN
    return quickest(task.model, next(task.train.batches(batch_of(task))).inputs)


def plan_effort(task: Task, clock: Clock, arithmetic: Arithmetic = PLAIN) -> Effort:
    """Return the schedule for this task: fixed without a budget, measured with one."""
    steps = max(1, math.ceil(steps_in(task, 1.0)))
    epochs = min(20.0, max(1.0, _STEPS / steps))
    if clock.budget_s is None or not len(task.train):
        return Effort(FINE, None, epochs)
    epoch_s = steps * _step_s(task, arithmetic)
    return Effort(_shares_for(clock.left_s, epoch_s), epoch_s, epochs)


def _shares_for(left_s: float, epoch_s: float) -> tuple[float, ...]:
    """Return steps that leave time to train: the fewer seconds, the sooner a bold one; the fewer passes, the milder.

    Example:
        >>> _shares_for(80.0, 0.1), _shares_for(150.0, 0.1), _shares_for(600.0, 0.1), _shares_for(600.0, 90.0)
        ((0.2,), (0.5, 0.2, 0.06), (0.55, 0.3, 0.15, 0.05), (0.7, 0.5, 0.4))
    """
    if _TRAINING_SHARE * left_s < _FEW_PASSES * epoch_s:
        return MILD
    if left_s < _TIGHT * _STEP_S:
        return BOLD
    return FINE if left_s > _ROOMY * _STEP_S else COARSE


def _step_s(task: Task, arithmetic: Arithmetic) -> float:
    """Return the time of one training step of the original with a forward pass of the teacher, in seconds."""
    model = copy.deepcopy(task.model).train()
    batch = next(task.train.batches(batch_of(task)))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        arithmetic.output(model, batch.inputs).square().mean().backward()
        with torch.no_grad():
            arithmetic.output(task.model, batch.inputs)
        times.append(time.perf_counter() - start)
        if times[-1] > _SLOW_S:
            break
    return min(times)
