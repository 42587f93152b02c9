"""The training loop. Its length is the number of batches; another method is another loss."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tersor.errors import ArgumentError, DataError, DivergedError
from tersor.loading.inputs import batch_size
from tersor.loading.task import Batch
from tersor.optimizers.groups import parameter_groups
from tersor.optimizers.registry import Recipe
from tersor.optimizers.switching import Switching, evaluation_point
from tersor.recovery import checkpoint
from tersor.recovery.average import Average
from tersor.recovery.epochs import Walk
from tersor.recovery.norms import evaluating, on_device, training_mode
from tersor.recovery.schedules import Cosine, Schedule
from tersor.recovery.settings import Settings
from tersor.recovery.snapshot import Progress, Snapshot, restore, take
from tersor.recovery.team import is_sharded, whole
from tersor.recovery.watch import best_look
from tersor.surgery.hold import Holder

#: Scalar loss of a model on a batch.
Objective: TypeAlias = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Trained:
    """A trained model and how it got there.

    Attributes:
        model: in eval mode.
        losses: loss of each step.
        recipe: the optimizer's hyperparameters.
        rollbacks: how often the loss exploded and the run went back with half the learning rate.
        wall_s: time of this call, in seconds.
        looks: (step, score) of each look of `Settings.watch`; the model is the best of them.
    """

    model: nn.Module
    losses: tuple[float, ...]
    recipe: Recipe
    rollbacks: int
    wall_s: float
    looks: tuple[tuple[int, float], ...] = ()


def train(
    model: nn.Module,
    batches: Walk,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Recipe,
    schedule: Schedule | None = None,
    settings: Settings | None = None,
) -> Trained:
    """Train a copy of `model` on labelled batches; the given model is untouched.

    Args:
        model: any module; its main output is compared with the target.
        batches: one step each; `Epochs` makes them from a split.
        loss: scalar of (output, target), averaged over the batch.
        optimizer: hyperparameters, such as `SGD(lr=0.1)` or `make_recipe("sgd", lr=0.1)`.
        schedule: factor on the learning rate; a cosine to zero by default.
        settings: clipping, averaging, checkpoint, progress.

    Raises:
        DataError: if there are no batches or a batch has no target.
        DivergedError: if the loss is not finite even after the learning rate was halved `patience` times.

    Example:
        >>> from tersor.optimizers.sgd import SGD
        >>> torch.manual_seed(0)
        <torch._C.Generator object at ...>
        >>> x = torch.randn(64, 2)
        >>> batches = [Batch((x,), x @ torch.tensor([[1.0], [-2.0]]), tuple(range(64)))] * 50
        >>> trained = train(nn.Linear(2, 1), batches, loss=nn.functional.mse_loss, optimizer=SGD(lr=0.1))
        >>> trained.losses[-1] < 0.01
        True
    """
    arithmetic = (settings or Settings()).arithmetic

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        if batch.target is None:
            raise DataError(
                "This loss compares with labels and the batch has none. Pass labels, or use `recover`."
            )
        output = arithmetic.output(module, batch.inputs)
        return loss(output, batch.target.to(output.device))

    return fit(model, batches, objective=objective, optimizer=optimizer, schedule=schedule, settings=settings)


def fit(
    model: nn.Module,
    batches: Walk,
    *,
    objective: Objective,
    optimizer: Recipe,
    schedule: Schedule | None = None,
    settings: Settings | None = None,
) -> Trained:
    """Minimise `objective(model, batch)` over `batches`: the loop under `train` and `recover`.

    A step whose loss or gradient is not finite, or whose loss has jumped far out of its range and stays there,
    goes back to the last snapshot and halves the learning rate. With `settings.checkpoint` a killed run
    continues where its file says, and on one thread ends with the same bits.

    Args:
        model: copied first, unless `settings.in_place`.
        batches: one step each.
        objective: scalar to minimise.
        optimizer: hyperparameters.
        schedule: factor on the learning rate; a cosine to zero by default.
        settings: clipping, averaging, checkpoint, progress.

    Raises:
        DataError: if there are no batches.
        DivergedError: if the loss is not finite even after `patience` rollbacks.
    """
    settings, began = settings or Settings(), time.perf_counter()
    if len(batches) == 0:
        raise DataError("There are no batches to train on.")
    given, model = model, model if settings.in_place and settings.team is None else copy.deepcopy(model)
    run = _Run(model, optimizer, schedule or Cosine(), settings, len(batches))
    while not run.over:
        run.walk(batches, objective)
    run.finish()
    if settings.team:
        model = _returned(given, model, settings)
    done, wall_s = run.progress, time.perf_counter() - began
    return Trained(model, tuple(done.losses), optimizer, done.rollbacks, wall_s, tuple(done.looks))


def _returned(given: nn.Module, trained: nn.Module, settings: Settings) -> nn.Module:
    """Return what a team trained as a plain module: its shards are put together again."""
    if not is_sharded(trained) and not settings.in_place:
        return trained
    state = whole(trained)
    model = given if settings.in_place else copy.deepcopy(given)
    model.load_state_dict(state)
    return model.eval()


class _Run:
    """The moving parts of one run: what a step changes and a snapshot holds."""

    def __init__(
        self, model: nn.Module, recipe: Recipe, schedule: Schedule, settings: Settings, total: int
    ) -> None:
        self.model, self.recipe, self.schedule = model, recipe, schedule
        self.settings, self.total = settings, total
        self.holder = Holder(model, settings.hold)
        self.optimizer = recipe.build(parameter_groups(model, settings.layer_decay))
        self.peaks = [group["lr"] * group.get("rate", 1.0) for group in self.optimizer.param_groups]
        self.team, self.module = settings.team, model
        if self.team:
            self.module, _ = self.team.prepare(model, self.optimizer)
            self._hold_shards()
        self.average, self.best = Average(model, settings.average), dict[str, Tensor]()
        self.more = {"average": self.average.tensors, "best": self.best}
        self.progress = Progress()
        torch.manual_seed(settings.seed)
        stored = checkpoint.load(settings.checkpoint) if settings.checkpoint else None
        self.snapshot: Snapshot = stored or self.copied()
        if stored:
            self._check(stored)
            self.progress = restore(stored, model, self.optimizer, self.more)

    def _hold_shards(self) -> None:
        """Hold the parameters that took the place of the model's, where the team divides them."""
        if self.team is None or not is_sharded(self.model):
            return
        if self.settings.checkpoint:
            raise ArgumentError(
                "A checkpoint holds a whole run, and this team divides the model's weights among its processes. Train "
                "without `checkpoint`, or let each process keep all weights (DDP)."
            )
        self.holder = Holder(self.model, self.team.placed(self.model, self.settings.hold))

    @property
    def over(self) -> bool:
        """Whether all steps are done, or looks at the model say that more would not help."""
        watch, done = self.settings.watch, self.progress
        return done.step >= self.total or (watch is not None and watch.is_over(done.looks))

    def walk(self, batches: Walk, objective: Objective) -> None:
        """Step through the batches that are left; return early after a rollback or at the end of the run."""
        for batch in islice(batches, self.progress.step, None):
            if not self.step(batch, objective):
                return self.roll_back()
            if self.over:
                return None
        return None

    def step(self, batch: Batch, objective: Objective) -> bool:
        """Take one step; False, and the parameters unchanged, where the loss or gradient is not finite."""
        # Taken before the pass, which moves statistics and random numbers; kept once the loss shows it to be sound.
        due = self.copied() if self.is_due() else None
        self.set_learning_rates()
        self.optimizer.zero_grad()
        loss = self.gradients(batch, objective)
        self.holder.mask_gradients()
        limit = self.settings.clip or float("inf")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if not math.isfinite(loss) or not torch.isfinite(norm):
            return False
        losses = self.progress.losses
        if self.progress.rollbacks < self.settings.patience and has_jumped(losses, loss):
            return False
        if due and not has_jumped(losses, loss, in_a_row=1):
            self.keep(due)
        self.optimizer.step()
        self.holder.mask_weights()
        losses.append(loss)
        self.progress.step += 1
        self.average.update(self.model, self.progress.step)
        if self.settings.on_step:
            self.settings.on_step(self.progress.step, self.total, loss)
        self.look()
        return True

    def gradients(self, batch: Batch, objective: Objective) -> float:
        """Leave the gradients of one batch in the parameters and return its loss, over all processes of the team."""
        part, weight = self.team.share(batch) if self.team else (batch, 1.0)
        part = Batch(on_device(self.model, part.inputs), part.target, part.ids)
        with training_mode(self.model, batch_size(part.inputs), dropout=self.settings.dropout):
            value = objective(self.module, part) * weight
        if self.team is None:
            value.backward()
            return value.item()
        self.team.backward(value)
        return self.team.mean(value).item()

    def set_learning_rates(self) -> None:
        """Set each group to its peak times the schedule times what rollbacks left."""
        factor = self.schedule(self.progress.step, self.total) * self.progress.scale
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def look(self) -> None:
        """Score the model where that is due, and remember the best."""
        watch, step = self.settings.watch, self.progress.step
        if watch is None or not watch.is_due(step, self.total):
            return
        with self.average.shown(self.model), evaluation_point(self.optimizer), evaluating(self.model):
            self.progress.looks.append((step, watch.score(self.model)))
            if best_look(self.progress.looks) == len(self.progress.looks) - 1:
                self.best.update({n: t.detach().clone() for n, t in self.model.state_dict().items()})
        if watch.listen:
            watch.listen(*self.progress.looks[-1])

    def is_due(self) -> bool:
        """Say whether this step begins with a snapshot."""
        return self.progress.step > 0 and self.progress.step % self.settings.every == 0

    def copied(self) -> Snapshot:
        """Return the state of the run as it is now."""
        return take(self.model, self.optimizer, self.progress, self.more)

    def keep(self, snapshot: Snapshot) -> None:
        """Go back to `snapshot` from now on, and write it where a checkpoint was asked for."""
        self.snapshot = snapshot
        if self.settings.checkpoint and (self.team is None or self.team.leads):
            checkpoint.save(self.snapshot, self.settings.checkpoint)

    def roll_back(self) -> None:
        """Return to the last snapshot with half the learning rate, or give up."""
        step, count = self.progress.step, self.progress.rollbacks + 1
        if count > self.settings.patience:
            raise DivergedError(
                f"The loss is not finite at step {step}, after {count - 1} rollbacks that each halved the learning"
                f" rate ({self.recipe.lr * self.progress.scale:g} now). Check the data for NaN, or start lower."
            )
        scale = self.progress.scale / 2
        self.progress = restore(self.snapshot, self.model, self.optimizer, self.more)
        self.progress.scale, self.progress.rollbacks = scale, count

    def finish(self) -> None:
        """Leave the model in eval mode at the weights that count."""
        if self.settings.checkpoint:
            self.keep(self.copied())
        if isinstance(self.optimizer, Switching):
            self.optimizer.to_evaluation_point()
        self.average.write(self.model)
        if self.best:
            self.model.load_state_dict(self.best)
        self.holder.mask_weights()
        self.optimizer.zero_grad()
        self.model.eval()

    def _check(self, stored: Snapshot) -> None:
        found = {name.removeprefix("model.") for name in stored.tensors if name.startswith("model.")}
        if found != set(self.model.state_dict()):
            raise ArgumentError(
                f"{self.settings.checkpoint} belongs to another model. Use one checkpoint file per run."
            )


def has_jumped(losses: list[float], value: float, *, window: int = 50, in_a_row: int = 3) -> bool:
    """Say whether the last losses, `value` included, all lie far above those before them.

    Far is 10 robust standard deviations (1.4826 times the median absolute deviation, at least a tenth of the median)
    above the median, and in the first steps 10 times the largest; one such batch is an outlier, some in a row are an
    explosion.

    Args:
        losses: of the steps so far.
        value: of this step.
        window: steps that tell what is usual.
        in_a_row: losses that must be far out.

    Example:
        >>> has_jumped([1.0, 1.1, 0.9] * 20 + [9.0, 9.0], 9.0), has_jumped([1.0, 1.1, 0.9] * 20, 9.0)
        (True, False)
        >>> has_jumped([2.3, 40.0, 90.0], 200.0)
        True
    """
    past = [*losses[-window - in_a_row + 1 :], value]
    usual, recent = past[:-in_a_row], past[-in_a_row:]
    if len(usual) < window:
        return bool(usual) and min(recent) > 10 * max(map(abs, usual))
    middle = median(usual)
    spread = max(1.4826 * median(abs(loss - middle) for loss in usual), 0.1 * abs(middle))
    return min(recent) > middle + 10 * spread
