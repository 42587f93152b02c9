"""What is decided before the first step of a training: length, batch, optimizer; and remembered on disk."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tersor._check import positive
from tersor.errors import ArgumentError, DataError
from tersor.loading.evaluate import evaluate
from tersor.loading.limit import parse_budget
from tersor.loading.task import Split, Task
from tersor.optimizers.auto import Rules, choose
from tersor.optimizers.registry import RECIPES, Recipe, make_recipe
from tersor.optimizers.situations import OWN_SCHEDULE, at_rate, portfolio, usual_recipe
from tersor.recovery.arithmetic import PLAIN, SAMPLES, Arithmetic, quickest
from tersor.recovery.course import Course
from tersor.recovery.epochs import Epochs
from tersor.recovery.loop import Objective, fit
from tersor.recovery.schedules import Constant, Cosine, Schedule
from tersor.recovery.settings import Settings
from tersor.recovery.views import identity

#: Samples of the search split that a look takes, and that score the trials of the automatic choice.
LOOKED_AT, _PROBED = 2000, 500
#: Length where neither passes nor time are asked for, in passes.
_EPOCHS = 20.0
#: Share of the time that is planned for: looks, snapshots and a busy machine take the rest.
_PLANNED = 0.8
_WARM, _TIMED = 3, 8
FILE = "decided.json"


@dataclass(frozen=True)
class Asked:
    """A training as it was asked for: the arguments of `learn`, with the split it will walk."""

    model: nn.Module
    task: Task
    split: Split
    objective_in: Callable[[Arithmetic], Objective]
    epochs: float | None
    optimizer: str | Recipe
    course: Course

    def fingerprint(self) -> str:
        """Return a hash of everything that decides the run, weights aside."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.model.state_dict().items()}
        plain = replace(self.course, augment=None, folder=None, team=None, on_step=None, say=None)
        words = (self.epochs, self.optimizer, plain, identity(self.course.augment))
        parts = (shapes, len(self.split), self.task.kind, *words)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Decided:
    """What was decided; a resumed run reads it instead of deciding again.

    Attributes:
        recipe: optimizer and peak learning rate.
        reason: why.
        epochs: passes over the training samples.
        batch: samples per step.
        before: metric before training.
        overhead: cost of the choice, as a fraction of the steps.
        arithmetic: how the passes compute.
    """

    recipe: Recipe
    reason: str
    epochs: float
    batch: int
    before: float
    overhead: float = 0.0
    arithmetic: Arithmetic = PLAIN

    @property
    def schedule(self) -> Schedule:
        """A short warm-up and a cosine, or no schedule for methods that bring their own."""
        return Constant() if _name(self.recipe) in OWN_SCHEDULE else Cosine(warmup=0.1)


def decide(asked: Asked) -> Decided:
    """Decide, or read what was decided where the folder holds this run.

    Raises:
        ArgumentError: if the folder holds another run.
    """
    folder, fingerprint = asked.course.folder, asked.fingerprint()
    if folder is None:
        return _decide(asked)
    if (stored := _read(folder / FILE)) is None:
        decided = _decide(asked)
        if asked.course.team is None or asked.course.team.leads:
            _write(folder / FILE, fingerprint, decided)
        return decided
    if stored["fingerprint"] != fingerprint:
        raise ArgumentError(
            f"{folder} holds a training that was asked for in other words. Repeat those, or take another folder."
        )
    found = dict(stored["decided"])
    named, arithmetic = found.pop("recipe"), Arithmetic(**found.pop("arithmetic"))
    given = asked.optimizer
    recipe = make_recipe(named.pop("name"), **named) if isinstance(given, str) else given
    return Decided(recipe, **found, arithmetic=arithmetic)


def _decide(asked: Asked) -> Decided:
    course, optimizer = asked.course, asked.optimizer
    batch = min(course.batch or _usual_batch(len(asked.split)), len(asked.split))
    arithmetic = _arithmetic(asked)
    epochs = _length(asked, batch, arithmetic)
    whole = copy.deepcopy(asked.model).eval()
    before = evaluate(asked.task.metric, whole, asked.task.search, limit=LOOKED_AT)
    if not isinstance(optimizer, str):
        return Decided(optimizer, "it was asked for", epochs, batch, before, arithmetic=arithmetic)
    batches = Epochs(asked.split, batch, epochs, course.seed)
    if optimizer != "auto":
        recipe = usual_recipe(optimizer, asked.model, course.start, len(batches))
        recipe = at_rate(recipe, course.lr) if course.lr else recipe
        return Decided(recipe, "it was asked for", epochs, batch, before, arithmetic=arithmetic)
    arms = portfolio(asked.model, course.start, batch, len(batches))
    if course.lr:
        usual = at_rate(arms[0], course.lr)
        reason = "it is the usual one for such networks"
        return Decided(usual, reason, epochs, batch, before, arithmetic=arithmetic)
    control = usual_recipe("adamw", asked.model, course.start)
    choice = choose(
        asked.model,
        batches,
        asked.objective_in(arithmetic),
        steps=len(batches),
        probe=list(asked.task.search.batches(250, limit=_PROBED)),
        rules=Rules(arms=arms, control=control, layer_decay=course.layer_decay),
    )
    # A budget of time pays for the trials as well.
    left = epochs * (1 - choice.overhead) if course.budget is not None else epochs
    return Decided(choice.recipe, choice.reason, left, batch, before, choice.overhead, arithmetic)


def _arithmetic(asked: Asked) -> Arithmetic:
    """Return the arithmetic asked for, or where time counts the quickest: clocks of a team would not agree on one."""
    course = asked.course
    if course.precision == "bfloat16":
        return Arithmetic(bfloat16=True)
    if course.precision == "float32" or course.team or (course.precision is None and course.budget is None):
        return PLAIN
    return quickest(asked.model, next(asked.split.batches(SAMPLES)).inputs)


def _usual_batch(samples: int) -> int:
    """Return the power of two next to a 32nd of the samples, between 16 and 128.

    Example:
        >>> [_usual_batch(n) for n in (100, 1000, 45_000)]
        [16, 32, 128]
    """
    return min(128, max(16, 2 ** round(math.log2(max(samples, 1) / 32))))


def _length(asked: Asked, batch: int, arithmetic: Arithmetic) -> float:
    """Return the passes asked for, or as many as the time allows."""
    if asked.epochs is not None:
        positive("epochs", asked.epochs)
    budget_s = parse_budget(asked.course.budget)
    if budget_s is None:
        return asked.epochs or _EPOCHS
    split = asked.split
    timed = Epochs(split, batch, (_WARM + _TIMED) / math.ceil(len(split) / batch))
    moments = [time.perf_counter()]
    settings = Settings(on_step=lambda *_: moments.append(time.perf_counter()))
    recipe = usual_recipe("adamw", asked.model, asked.course.start)
    fit(asked.model, timed, objective=asked.objective_in(arithmetic), optimizer=recipe, settings=settings)
    step_s = (moments[-1] - moments[min(_WARM, len(moments) - 2)]) / max(len(moments) - 1 - _WARM, 1)
    affordable = _PLANNED * budget_s / step_s / math.ceil(len(split) / batch)
    if asked.course.team:
        # Clocks differ, lengths must not.
        affordable = asked.course.team.mean(torch.tensor(affordable)).item()
    return min(affordable, asked.epochs or math.inf)


def _name(recipe: Recipe) -> str:
    names = {kind: name for name, kind in RECIPES.items()}
    return names.get(type(recipe), type(recipe).__name__)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). Delete it to start afresh.") from error


def _write(path: Path, fingerprint: str, decided: Decided) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    recipe = {"name": _name(decided.recipe), **asdict(decided.recipe)}  # pyright: ignore[reportArgumentType] - recipes are dataclasses
    content = {"fingerprint": fingerprint, "decided": {**asdict(decided), "recipe": recipe}}
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1) + "\n")
    draft.replace(path)
