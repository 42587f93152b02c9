"""The automatic choice of optimizer and learning rate, within a share of the training budget."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from tersor._check import fraction, positive
from tersor.errors import DataError
from tersor.loading.inputs import batch_size
from tersor.loading.task import Batch
from tersor.optimizers.adamw import AdamW
from tersor.optimizers.groups import parameter_groups
from tersor.optimizers.noise import Objective, moved, noise_scale
from tersor.optimizers.registry import Recipe
from tersor.optimizers.situations import at_length, census, portfolio, scaled
from tersor.optimizers.switching import Switching

#: Below this many steps, trials within the allowed share are too short to tell anything.
_LEAST_STEPS = 1500
#: Budget, in steps, from which trials are divided into rounds of growing length.
_ROUNDS = 600.0
#: Shortest probe of the stability edge, in steps, and batches that tell the noise of the gradient.
_EDGE, _NOISE = 15, 4
#: Advance of the likeliest kind of recipe and of the usual rates, as a share of what the best trial learned.
_ADVANCE, _USUAL = 0.15, 0.2
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
        noise_scale: noise of the gradient after a trial, in samples (see `noise_scale`); None without trials.
    """

    recipe: Recipe
    warmup: float
    reason: str
    trials: tuple[Trial, ...] = ()
    overhead: float = 0.0
    noise_scale: float | None = None


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
    2. Each runs a *complete* schedule that anneals to zero: rankings of runs that are cut off flip when rates decay.
       A trial of `k` steps stands for a run of `n` steps at the same rate, with Muon at `(n / k)^0.3` times it: the
       best rates of short and long runs differ by so much. What is usual has an advance, because short runs tell
       little about rates and favour methods that are quick at first.
    3. The leader, or with a larger budget the two leaders, run again at half and twice their rate, and the best meet
       the control once more; recipes beyond their edge of stability, found by bisection, are lowered to it first.

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
    arms = rules.arms or portfolio(model, batch=batch_size(next(_forever(batches)).inputs), steps=steps)
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
        self.arms: Sequence[Recipe] = ()
        self.start, self.trained = math.inf, model

    def run(self, arms: Sequence[Recipe]) -> Choice:
        """Find who leads, at which rate, and compare with the control."""
        control = self.rules.control
        self.arms = arms
        self.start = self.score(self.model)
        if self.budget < _ROUNDS:
            length = self.length(1.0, len(arms) + 3)
            first = [self.trial(recipe, length) for recipe in (*arms, control)]
            leader = self.ranked(first[:-1])[0]
            rates = [self.trial(scaled(leader.recipe, factor), length) for factor in (2.0, 0.5)]
            final = [first[-1], leader, *rates]
        else:
            self.arms = self.below_edges(arms)
            first = [self.trial(recipe, self.length(0.15, len(arms))) for recipe in self.arms]
            field = [scaled(t.recipe, f) for t in self.ranked(first)[:2] for f in (1.0, 2.0, 0.5)]
            second = [self.trial(recipe, self.length(0.4, len(field))) for recipe in field]
            entered = [control, *(t.recipe for t in self.ranked(second)[:2])]
            final = [self.trial(recipe, self.length(0.4, len(entered))) for recipe in entered]
        # Sorting is stable: the control, which comes first, wins ties.
        return self.chosen(self.ranked(final)[0], next(t for t in final if t.recipe == control))

    def chosen(self, won: Trial, bar: Trial) -> Choice:
        """Return the choice with its reason."""
        noise = noise_scale(self.trained, list(islice(_forever(self.batches), _NOISE)), self.objective)
        self.spent += _NOISE
        beaten = f"the control {bar.recipe!r} {bar.loss:.4g}" if won is not bar else "nothing beat it"
        reason = (
            f"best of {len(self.trials)} annealed trials: loss {won.loss:.4g} after {won.steps} steps; {beaten}; "
            f"noise scale of the gradient {noise:.3g} samples"
        )
        return Choice(won.recipe, _WARMUP, reason, tuple(self.trials), self.spent / self.steps, noise)

    def length(self, share: float, trials: int) -> int:
        """Return the steps of each of some trials that may cost a share of the budget together."""
        left = self.rules.share * self.steps - _NOISE - _FORWARD * len(self.probe)
        return max(1, math.floor(share * left / trials - _FORWARD * len(self.probe)))

    def ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials from the best: by what they learned, with an advance for what is usual.

        What was learned, as a share of what the best learned, counts `_ADVANCE` more for the likeliest kind of recipe,
        half of that for the second, and `_USUAL` more at a rate that is usual; the control's rate is its user's usual.
        """
        gain = self.start - min(trial.loss for trial in trials)
        kinds, known = [type(arm) for arm in self.arms], (*self.arms, self.rules.control)

        def merit(trial: Trial) -> float:
            if not math.isfinite(trial.loss) or gain <= 0:
                return -trial.loss
            kind = type(trial.recipe)
            place = kinds.index(kind) if kind in kinds else len(kinds)
            usual = _USUAL if trial.recipe in known else 0.0
            return (self.start - trial.loss) / gain + _ADVANCE * max(0.0, 1 - place / 2) + usual

        return sorted(trials, key=merit, reverse=True)

    def below_edges(self, arms: Sequence[Recipe]) -> list[Recipe]:
        """Lower the arms to their edge of stability, where there is budget to find it."""
        probes = 4
        length = math.floor(0.05 * self.budget / (len(arms) * probes))
        return list(arms) if length < _EDGE else [self.below_edge(a, probes, min(length, 50)) for a in arms]

    def below_edge(self, recipe: Recipe, probes: int, length: int) -> Recipe:
        """Bisect, on a logarithmic scale, the largest factor up to 1 at which short runs are stable."""
        low, high = -6.0, 2.0
        for _ in range(probes):
            middle = (low + high) / 2
            stable = self.is_stable(scaled(at_length(recipe, length, self.steps), 2**middle), length)
            low, high = (middle, high) if stable else (low, middle)
        return scaled(recipe, min(1.0, 2**low))

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
        """Run one complete schedule, at the rate that such a length wants, and score it."""
        self.trained = copy.deepcopy(self.model)
        short = at_length(recipe, length, self.steps)
        losses = self.losses(self.trained, short, length, lambda t: annealed(t, length))
        loss = self.score(self.trained) if len(losses) == length else math.inf
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
        values = [self.objective(model, moved(model, b)).item() * batch_size(b.inputs) for b in self.probe]
        mean = sum(values) / sum(batch_size(b.inputs) for b in self.probe)
        return mean if math.isfinite(mean) else math.inf


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
    value = objective(model, moved(model, batch))
    optimizer.zero_grad()
    value.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return value.item()


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


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
