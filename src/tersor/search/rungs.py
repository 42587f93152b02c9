"""Cheap fidelity first: designs compared as stitched, then after a short annealed distillation; one goes on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from tersor.errors import TersorError
from tersor.search.effort import steps_in
from tersor.search.propose import Lessons, Proposal
from tersor.search.racing import Racing
from tersor.search.run import Run, trains
from tersor.search.shrink import restored

#: Part of a step's training that each design gets which goes on from the stitched comparison.
SHORT = 0.1
#: Designs that go on at the next step, where the stitched comparison foretold the short training, and where it did not.
_FORETOLD, _FEWER, _MORE = 0.5, 2, 4
#: A short training of fewer passes tells nothing; more are not needed to rank.
_LEAST_EPOCHS, _MOST_EPOCHS = 0.3, 4.0
#: Trainings of as many steps are not judged by their start; others are given up where the model loses this many times
#: the margin.
_LONG, HOPELESS = 100.0, 12.0


def climb(run: Run, proposals: Sequence[Proposal], lessons: Lessons, epochs: float) -> Proposal:
    """Return the proposal to recover in full, with what a short training already made of it.

    The best few as stitched are distilled for a short schedule of their own, annealed to its end, on the same samples
    in the same order; the closest to the original afterwards wins. How well the first comparison foretold the second
    is said, and decides how many go on at the next step.

    Args:
        run: the search.
        proposals: stitched, all for the same target.
        lessons: how many go on, which is changed, and the samples to compare on.
        epochs: passes of the full training that follows.
    """
    ranked = sorted(proposals, key=lambda p: p.divergence)[: lessons.finalists]
    short = min(SHORT * epochs, _MOST_EPOCHS)
    if len(ranked) < 2 or not trains(run) or short < _LEAST_EPOCHS or run.clock.budget_s is None:
        return ranked[0]
    after = _trained(run, ranked, lessons.race(run), short)
    rho = spearman([p.divergence for p in ranked], [p.divergence for p in after])
    lessons.finalists = _FEWER if rho >= _FORETOLD else _MORE
    best = min(after, key=lambda p: p.divergence)
    told = ", ".join(f"{'+'.join(p.kinds)} {p.divergence:.4g}" for p in after)
    run.say(
        "candidate", f"after {short:.2g} passes: {told}; rank correlation with the stitched models {rho:.2f}"
    )
    return best


def _trained(run: Run, proposals: Sequence[Proposal], racing: Racing, epochs: float) -> list[Proposal]:
    made = [proposal.stitched for proposal in proposals if proposal.stitched is not None]
    waits = restored(run, [stitched.model for stitched in made], epochs, "short training")
    models = [wait()[0] for wait in waits]
    return [
        replace(proposal, stitched=replace(stitched, model=model), divergence=racing(model))
        for proposal, stitched, model in zip(proposals, made, models, strict=True)
    ]


class TooBold(TersorError):
    """A design that no training in the time left would bring back."""


def refuse_hopeless(run: Run, lessons: Lessons, model: nn.Module, epochs: float) -> None:
    """Check, where training is short, that a model before it is not too far outside the limit.

    Raises:
        TooBold: if it loses more than `HOPELESS` times the margin on the search data.
    """
    steps = steps_in(run.task, epochs)
    if steps >= _LONG or run.clock.budget_s is None:
        return
    lost = lessons.lost_by(run, model)
    if lost > HOPELESS * run.margin:
        raise TooBold(
            f"before training it loses {lost:.4f}, more than {HOPELESS:g} times what is allowed, and {steps:.0f} "
            "steps do not bring that back; a milder one is tried instead"
        )


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the rank correlation of two rankings of the same things; 1 where one of them tells nothing apart.

    Example:
        >>> round(spearman([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]), 3)
        0.5
    """
    from scipy.stats import rankdata

    if len(set(first)) < 2 or len(set(second)) < 2:
        return 1.0
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
