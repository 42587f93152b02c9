"""How far models are from the original, on the same samples in the same order; clear losers are not run to the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from tersor.certification.evidence.betting import Betting
from tersor.distillation.rules import Loss, loss_for
from tersor.loading.task import Batch
from tersor.recovery.teacher import live
from tersor.search.run import Run

#: Samples on which models are compared at most, those of one call, and those whose distance is one observation: losses
#: that are divided by the spread of a batch need more than one sample.
MOST, CALL, _GROUP = 512, 64, 8
#: Probability that a model which is the closer one is given up.
_ALPHA = 0.05
#: A guess of as few observations as there are in the first call.
_BETTING = Betting(prior_samples=8, prior_variance=0.25)


@dataclass
class Racing:
    r"""The distance of models from the original, raced against the closest one so far.

    Each group of samples is one observation: with the distances $a$ of a model and $b$ of the closest one,
    $(a - b) / (a + b)$ lies in [-1, 1]. After each call, a gambler bets against "it is no further on average"; once his
    wealth reaches 20, the model is given up, which happens to one that is no further with probability 5% at most.
    Its distance is then that of the closest one times the ratio of both on the samples that were seen.

    Attributes:
        batches: the samples.
        answers: what the original gives on each batch.
        loss: distance of outputs.
        best: distances of the closest model so far, by group; None before the first.
        raced: models that were looked at, and groups that they needed together.

    Example:
        >>> import torch
        >>> from tersor.distillation.mse import MSE
        >>> batch = Batch((torch.eye(64),), None, tuple(range(64)))
        >>> model = nn.Linear(64, 3)
        >>> racing = Racing([batch] * 4, [live(model)(batch)] * 4, MSE())
        >>> racing(model), racing(nn.Linear(64, 3)) > 0.0, racing.raced
        (0.0, True, [2, 48])

    Source:
        Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, Journal of the Royal
        Statistical Society B 86 (2024), section 4.
    """

    batches: Sequence[Batch]
    answers: Sequence[Tensor]
    loss: Loss
    best: Float[np.ndarray, " groups"] | None = None
    raced: list[int] = field(default_factory=lambda: [0, 0])

    def __call__(self, model: nn.Module, *, counts: bool = True) -> float:
        """Return the distance of `model`, the mean over samples; infinite where that is not a number.

        Args:
            model: run in eval mode.
            counts: whether later models race against this one if it is the closest; False for one that is not among
                those to choose from.
        """
        seen = np.empty(0)
        for batch, answer in zip(self.batches, self.answers, strict=True):
            seen = np.append(seen, self._distances(model, batch, answer))
            if self._lost(seen):
                break
        self.raced[0] += 1
        self.raced[1] += len(seen)
        found = float(np.nan_to_num(seen.mean(), nan=math.inf))
        if self.best is not None and len(seen) < len(self.best):
            part = self.best[: len(seen)].mean()
            return float(self.best.mean()) * found / part if part > 0 else found
        if counts and (self.best is None or found < self.best.mean()):
            self.best = seen
        return found

    def anew(self) -> "Racing":
        """Return another race on the same samples, with nobody ahead yet."""
        return Racing(self.batches, self.answers, self.loss)

    def told(self) -> str:
        """Return in words how many samples the race took."""
        models, groups = self.raced
        most = models * (len(self.best) if self.best is not None else 0)
        return (
            f"{models} stitched models raced on {groups} of {most} groups of samples" if most else "no race"
        )

    def _lost(self, seen: Float[np.ndarray, " groups"]) -> bool:
        if self.best is None or len(seen) >= len(self.best):
            return False
        rival = self.best[: len(seen)]
        further = (seen - rival) / np.maximum(seen + rival, np.finfo(float).tiny)
        # A distance that is not a number belongs to a broken model: it loses every bet.
        further = np.nan_to_num(further, nan=1.0)
        wealth = _BETTING.log_wealth(np.clip(further, -1.0, 1.0), 0.0, against_more=False)
        return bool(wealth.max() >= math.log(1 / _ALPHA))

    def _distances(self, model: nn.Module, batch: Batch, answer: Tensor) -> Float[np.ndarray, " groups"]:
        output, count = live(model)(batch), len(batch.ids)
        if len(output) != count or count < 2 * _GROUP:  # not a row for each sample, or few: one observation
            groups = [slice(None)]
        else:
            groups = [slice(start, start + _GROUP) for start in range(0, count - _GROUP + 1, _GROUP)]
        target = batch.target
        parts = ((output[g], answer[g], None if target is None else target[g]) for g in groups)
        return np.array([self.loss(*part).item() for part in parts])


def racing_of(run: Run) -> Racing:
    """Return a race over training samples, which no weights were refitted on; calibration samples without them."""
    task = run.task
    split = (
        task.train.batches(CALL, shuffle=run.request.seed)
        if len(task.train)
        else task.calibration.batches(CALL)
    )
    batches, answer = list(islice(split, MOST // CALL)), live(task.model)
    answers = [answer(batch) for batch in batches]
    return Racing(batches, answers, loss_for(answers[0], batches[0].target, task.kind))
