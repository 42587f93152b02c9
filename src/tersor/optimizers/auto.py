"""The automatic choice of optimizer and learning rate, within a share of the training budget."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tersor._check import fraction, positive
from tersor.errors import DataError
from tersor.loading.inputs import batch_size, device_of, map_tensors
from tersor.loading.task import Batch
from tersor.optimizers.adamw import AdamW
from tersor.optimizers.groups import parameter_groups
from tersor.optimizers.registry import Recipe
from tersor.optimizers.situations import census, portfolio
from tersor.optimizers.switching import Switching

#: Scalar loss of a model on a batch.
Objective: TypeAlias = Callable[[nn.Module, Batch], Tensor]

#: Below this many steps, trials within the allowed share are too short to tell anything.
_LEAST_STEPS = 1500
#: Shortest mini-schedule and shortest probe of the stability edge, in steps.
_SHORTEST, _EDGE = 50, 15
#: A forward pass costs about a third of a training step.
_FORWARD = 1 / 3
_WARMUP = 0.1
#: What the winner has to beat where the user has no recipe of their own.
_PLAIN = AdamW(lr=1e-3)


@dataclass(frozen=True, slots=True)
class Rules:
    """Who takes part in the trials, and what they may cost.

    Attributes:
        arms: recipes to try, the likeliest first; the usual ones for the model when left out.
        control: the user's own recipe, or a plain one: it takes part whatever its chances.
        share: largest cost of the choice, as a fraction of the training steps.
        layer_decay: see `parameter_groups`.

    Raises:
        ArgumentError: if `share` is not in [0, 1).
    """

    arms: tuple[Recipe, ...] = ()
    control: Recipe = _PLAIN
    share: float = 0.15
    layer_decay: float = 1.0

    def __post_init__(self) -> None:
        fraction("share", self.share)


@dataclass(frozen=True, slots=True)
class Trial:
    """One complete, annealed mini-schedule.

    Attributes:
        recipe: optimizer and peak learning rate.
        steps: length of the schedule.
        loss: mean loss on the probe afterwards; infinite if it diverged.
    """

    recipe: Recipe
    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen optimizer, and why.

    Attributes:
        recipe: optimizer and peak learning rate.
        warmup: fraction of steps to warm up, with a cosine to zero after it.
        reason: one sentence for the report.
        trials: every mini-schedule that was run.
        overhead: cost of the choice as a fraction of the training steps.
    """

    recipe: Recipe
    warmup: float
    reason: str
    trials: tuple[Trial, ...] = ()
    overhead: float = 0.0


def choose(
    model: nn.Module,
    batches: Iterable[Batch],
    objective: Objective,
    *,
    steps: int,
    probe: Sequence[Batch],
    rules: Rules | None = None,
) -> Choice:
    """Choose optimizer and learning rate for a run of `steps`, by trials that cost at most `share` of it.

    1. The census of the model picks three likely recipes; the control (the user's own, or AdamW at 1e-3) joins.
    2. Where the budget allows, each recipe's largest stable learning rate is bisected on short runs, and a
       fixed fraction of it replaces the table's rate.
    3. Recipes at half, one and two times their rate compete by successive halving. Every trial is a *complete*
       schedule that anneals to zero: rankings of runs that are cut off flip when rates decay.
    4. The control takes part in the last round whatever its rank, and wins ties.

    Deterministic: same model, batches and steps give the same choice.

    Args:
        model: copied for each trial, never changed.
        batches: can be walked again and again; trials see the first ones.
        objective: scalar loss of (model, batch).
        steps: length of the run that is to follow.
        probe: batches that score the trials; best from the search split.
        rules: who takes part and what it may cost.

    Raises:
        ArgumentError: if `steps` is not positive.
        DataError: if there is nothing to train or to score with.

    Example:
        >>> x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
        >>> batch = Batch((x,), x[:, :1], tuple(range(32)))
        >>> loss = lambda model, b: (model(*b.inputs) - b.target).square().mean()
        >>> short = choose(nn.Linear(4, 1), [batch], loss, steps=100, probe=[batch])
        >>> short.overhead, short.reason
        (0.0, '100 steps are too few for trials (1500 needed): the usual recipe for networks without norms.')
    """
    positive("steps", steps)
    rules = rules or Rules()
    if not probe:
        raise DataError("There are no probe batches to score trials with. Pass some from the search split.")
    arms = rules.arms or portfolio(model)
    if steps < _LEAST_STEPS or rules.share == 0:
        norm = census(model).norm
        kind = "networks without norms" if norm == "none" else f"networks with {norm} norms"
        few = f"{steps} steps are too few for trials ({_LEAST_STEPS} needed)"
        return Choice(arms[0], _WARMUP, f"{few}: the usual recipe for {kind}.")
    return _Contest(model, batches, objective, probe, rules, steps).run(arms)


class _Contest:
    """Runs trials and keeps the account of their cost, in training steps."""

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        objective: Objective,
        probe: Sequence[Batch],
        rules: Rules,
        steps: int,
    ) -> None:
        self.model, self.batches, self.objective = model, batches, objective
        self.probe, self.rules, self.steps = probe, rules, steps
        self.budget, self.spent = rules.share * steps, 0.0
        self.trials: list[Trial] = []

    def run(self, arms: Sequence[Recipe]) -> Choice:
        """Find rates, halve, and compare with the control."""
        control, steps = self.rules.control, self.steps
        tuned = self.tuned(arms)
        field = [replace(recipe, lr=recipe.lr * factor) for factor in (1.0, 2.0, 0.5) for recipe in tuned]
        rounds = self.rounds(len(field))
        for index, (entrants, length) in enumerate(rounds):
            last = index == len(rounds) - 1
            entered = field[:entrants] + ([control] if last and control not in field[:entrants] else [])
            results = [self.trial(recipe, length) for recipe in entered]
            # Stable: the earlier, likelier recipe wins a tie; the control comes before all.
            field = [t.recipe for t in sorted(results, key=lambda t: (t.loss, t.recipe is not control))]
        best, bar = min(self.trials[-len(results) :], key=lambda t: t.loss), _of(control, self.trials)
        won = best if best.loss < bar.loss else bar
        beaten = f"the control {bar.recipe!r} {bar.loss:.4g}" if won is not bar else "nothing beat it"
        reason = f"Best of {len(self.trials)} annealed trials: loss {won.loss:.4g} after {won.steps} steps; {beaten}."
        return Choice(won.recipe, _WARMUP, reason, tuple(self.trials), self.spent / steps)

    def rounds(self, candidates: int) -> list[tuple[int, int]]:
        """Return (entrants, steps of each) for two rounds that share what is left of the budget."""
        half = (self.budget - self.spent) / 2
        scoring = _FORWARD * len(self.probe)
        first = max(1, min(candidates, math.floor(half / (_SHORTEST + scoring))))
        second = max(1, math.ceil(first / 3))
        # The control joins the last round.
        last = (second, max(1, math.floor(half / (second + 1) - scoring)))
        return [(first, math.floor(half / first - scoring)), last] if first > second else [last]

    def tuned(self, arms: Sequence[Recipe]) -> list[Recipe]:
        """Return the arms at a fraction of their stability edge, or as they are if that costs too much."""
        probes = 5
        length = math.floor(self.budget / 3 / (len(arms) * probes))
        if length < _EDGE:
            return list(arms)
        return [self.below_edge(recipe, probes, min(length, 50)) for recipe in arms]

    def below_edge(self, recipe: Recipe, probes: int, length: int) -> Recipe:
        """Bisect the largest stable rate between 1/16 and 64 times the table's, on a logarithmic scale."""
        low, high = -4.0, 6.0
        for _ in range(probes):
            middle = (low + high) / 2
            stable = self.is_stable(replace(recipe, lr=recipe.lr * 2**middle), length)
            low, high = (middle, high) if stable else (low, middle)
        return replace(recipe, lr=recipe.lr * 2**low * _BELOW.get(type(recipe).__name__, 0.25))

    def is_stable(self, recipe: Recipe, length: int) -> bool:
        """Say whether a short run, after a warm-up, neither diverges nor raises the loss."""
        losses = self.losses(
            copy.deepcopy(self.model), recipe, length, lambda t: min(1.0, 3 * (t + 1) / length)
        )
        if len(losses) < length:
            return False
        third = length // 3
        return _median(losses[-third:]) <= _median(losses[:third])

    def trial(self, recipe: Recipe, length: int) -> Trial:
        """Run one complete schedule and score it."""
        model = copy.deepcopy(self.model)
        losses = self.losses(model, recipe, length, lambda t: annealed(t, length))
        loss = self.score(model) if len(losses) == length else math.inf
        self.trials.append(Trial(recipe, length, loss))
        return self.trials[-1]

    def losses(
        self, model: nn.Module, recipe: Recipe, length: int, factor: Callable[[int], float]
    ) -> list[float]:
        """Train `model` in place; the list ends early where the loss is not finite."""
        optimizer, losses = recipe.build(parameter_groups(model, self.rules.layer_decay)), []
        peaks = [group["lr"] * group.get("rate", 1.0) for group in optimizer.param_groups]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for step, batch in enumerate(islice(_forever(self.batches), length)):
                self.spent += 1
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * factor(step)
                value = _step(model, batch, self.objective, optimizer)
                if not math.isfinite(value):
                    break
                losses.append(value)
        if isinstance(optimizer, Switching):
            optimizer.to_evaluation_point()
        return losses

    @torch.no_grad()
    def score(self, model: nn.Module) -> float:
        """Return the mean loss on the probe, by sample."""
        model.eval()
        self.spent += _FORWARD * len(self.probe)
        values = [self.objective(model, _moved(model, b)).item() * batch_size(b.inputs) for b in self.probe]
        mean = sum(values) / sum(batch_size(b.inputs) for b in self.probe)
        return mean if math.isfinite(mean) else math.inf


#: Fraction of the stability edge to train at, by recipe.
_BELOW = {"SGD": 0.5, "Muon": 0.67}


def annealed(step: int, total: int) -> float:
    """Return the factor on the learning rate: up in the first tenth, then a cosine to zero.

    Example:
        >>> [round(annealed(step, 10), 2) for step in (0, 1, 9)]
        [1.0, 1.0, 0.03]
    """
    rising = round(_WARMUP * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))


def _step(model: nn.Module, batch: Batch, objective: Objective, optimizer: torch.optim.Optimizer) -> float:
    model.train()
    value = objective(model, _moved(model, batch))
    optimizer.zero_grad()
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return value.item()


def _moved(model: nn.Module, batch: Batch) -> Batch:
    device = device_of(model)
    return Batch(map_tensors(lambda t: t.to(device), batch.inputs), batch.target, batch.ids)


def _forever(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        seen = 0
        for batch in batches:
            # One sample has no variance for a batch norm.
            if batch_size(batch.inputs) > 1:
                seen += 1
                yield batch
        if not seen:
            raise DataError("There are no batches of two or more samples to run trials on.")


def _of(recipe: Recipe, trials: list[Trial]) -> Trial:
    return next(trial for trial in reversed(trials) if trial.recipe == recipe)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
