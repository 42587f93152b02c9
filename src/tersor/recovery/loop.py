"""The training loop. Its length is the number of batches; another method is another loss."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tersor.errors import ArgumentError, DataError, DivergedError
from tersor.loading.inputs import batch_size, call, main_output
from tersor.loading.task import Batch
from tersor.optimizers.groups import parameter_groups
from tersor.optimizers.registry import Recipe
from tersor.optimizers.switching import Switching
from tersor.recovery import checkpoint
from tersor.recovery.epochs import Walk
from tersor.recovery.hold import Holder
from tersor.recovery.norms import on_device, training_mode
from tersor.recovery.schedules import Cosine, Schedule
from tersor.recovery.settings import Settings
from tersor.recovery.snapshot import Progress, Snapshot, restore, take

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
    """

    model: nn.Module
    losses: tuple[float, ...]
    recipe: Recipe
    rollbacks: int
    wall_s: float


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

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        if batch.target is None:
            raise DataError(
                "This loss compares with labels and the batch has none. Pass labels, or use `recover`."
            )
        output = main_output(call(module, batch.inputs))
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
    model = model if settings.in_place else copy.deepcopy(model)
    run = _Run(model, optimizer, schedule or Cosine(), settings, len(batches))
    while run.progress.step < len(batches):
        run.walk(batches, objective)
    run.finish()
    done = run.progress
    return Trained(model, tuple(done.losses), optimizer, done.rollbacks, time.perf_counter() - began)


class _Run:
    """The moving parts of one run: what a step changes and a snapshot holds."""

    def __init__(
        self, model: nn.Module, recipe: Recipe, schedule: Schedule, settings: Settings, total: int
    ) -> None:
        self.model, self.recipe, self.schedule, self.settings, self.total = (
            model,
            recipe,
            schedule,
            settings,
            total,
        )
        self.holder = Holder(model, settings.hold)
        self.optimizer = recipe.build(parameter_groups(model))
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.average = _trainable(model) if settings.average else {}
        self.progress = Progress()
        torch.manual_seed(settings.seed)
        stored = checkpoint.load(settings.checkpoint) if settings.checkpoint else None
        self.snapshot: Snapshot = stored or take(model, self.optimizer, self.average, self.progress)
        if stored:
            self._check(stored)
            self.progress = restore(stored, model, self.optimizer, self.average)

    def walk(self, batches: Walk, objective: Objective) -> None:
        """Step through the batches that are left; return early after a rollback."""
        for batch in islice(batches, self.progress.step, None):
            if not self.step(batch, objective):
                self.roll_back()
                return

    def step(self, batch: Batch, objective: Objective) -> bool:
        """Take one step; False, and the parameters unchanged, where the loss or gradient is not finite."""
        batch = Batch(on_device(self.model, batch.inputs), batch.target, batch.ids)
        # Taken before the pass, which moves statistics and random numbers; kept once the loss shows it to be sound.
        due = take(self.model, self.optimizer, self.average, self.progress) if self.is_due() else None
        self.set_learning_rates()
        with training_mode(self.model, batch_size(batch.inputs)):
            value = objective(self.model, batch)
        self.optimizer.zero_grad()
        value.backward()
        self.holder.mask_gradients()
        limit = self.settings.clip or float("inf")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if not torch.isfinite(value) or not torch.isfinite(norm):
            return False
        if self.progress.rollbacks < self.settings.patience and has_jumped(
            self.progress.losses, value.item()
        ):
            return False
        if due and not has_jumped(self.progress.losses, value.item(), in_a_row=1):
            self.keep(due)
        self.optimizer.step()
        self.holder.mask_weights()
        self.progress.losses.append(value.item())
        self.progress.step += 1
        self.update_average()
        if self.settings.on_step:
            self.settings.on_step(self.progress.step, self.total, self.progress.losses[-1])
        return True

    def set_learning_rates(self) -> None:
        """Set each group to its peak times the schedule times what rollbacks left."""
        factor = self.schedule(self.progress.step, self.total) * self.progress.scale
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def update_average(self) -> None:
        """Move the running mean towards the weights, faster in the first steps."""
        if self.average and self.settings.average:
            decay = min(self.settings.average, (1 + self.progress.step) / (10 + self.progress.step))
            current = _trainable(self.model)
            torch._foreach_lerp_(list(self.average.values()), list(current.values()), 1 - decay)

    def is_due(self) -> bool:
        """Say whether this step begins with a snapshot."""
        return self.progress.step > 0 and self.progress.step % self.settings.every == 0

    def keep(self, snapshot: Snapshot) -> None:
        """Go back to `snapshot` from now on, and write it where a checkpoint was asked for."""
        self.snapshot = snapshot
        if self.settings.checkpoint:
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
        self.progress = restore(self.snapshot, self.model, self.optimizer, self.average)
        self.progress.scale, self.progress.rollbacks = scale, count

    def finish(self) -> None:
        """Leave the model in eval mode at the weights that count."""
        if self.settings.checkpoint:
            self.keep(take(self.model, self.optimizer, self.average, self.progress))
        if isinstance(self.optimizer, Switching):
            self.optimizer.to_evaluation_point()
        if self.average:
            self.model.load_state_dict(self.average, strict=False)
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
    above the median; one such batch is an outlier, some in a row are an explosion.

    Args:
        losses: of the steps so far.
        value: of this step.
        window: steps that tell what is usual.
        in_a_row: losses that must be far out.

    Example:
        >>> has_jumped([1.0, 1.1, 0.9] * 20 + [9.0, 9.0], 9.0), has_jumped([1.0, 1.1, 0.9] * 20, 9.0)
        (True, False)
    """
    past = [*losses[-window - in_a_row + 1 :], value]
    usual, recent = past[:-in_a_row], past[-in_a_row:]
    if len(usual) < window:
        return False
    middle = median(usual)
    spread = max(1.4826 * median(abs(loss - middle) for loss in usual), 0.1 * abs(middle))
    return min(recent) > middle + 10 * spread


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
