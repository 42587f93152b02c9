"""Training from end to end: decide, train the head, train the whole, keep the best."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import save_model
from torch import Tensor, nn

from tersor.errors import DataError, FolderError
from tersor.loading.evaluate import evaluate
from tersor.loading.onnx.graph_model import refuse_graph
from tersor.loading.task import Batch, Split, Task
from tersor.optimizers.adamw import AdamW
from tersor.optimizers.registry import Recipe
from tersor.recovery.arithmetic import PLAIN, Arithmetic
from tersor.recovery.course import Course
from tersor.recovery.decide import LOOKED_AT, Asked, Decided, decide
from tersor.recovery.epochs import Epochs
from tersor.recovery.head import head_of
from tersor.recovery.loop import Objective, fit
from tersor.recovery.norms import reestimate_norms
from tersor.recovery.settings import Settings
from tersor.recovery.views import Views
from tersor.recovery.watch import Watch, best_look

WEIGHTS, REPORT = "model.safetensors", "training.json"
#: Most looks of one run: a look costs a pass over the search samples.
_LOOKS = 50


@dataclass(frozen=True)
class Learned:
    """A trained model and how it got there.

    Attributes:
        model: in eval mode, with the weights that did best on the search split.
        metric: name of the metric.
        higher_is_better: its direction.
        before: metric on the search split before training.
        score: the same, of `model`. It chose the weights, so it is a little too good.
        looks: (step, metric) after each pass.
        losses: loss of each step.
        recipe: optimizer and peak learning rate.
        reason: why this optimizer.
        overhead: cost of choosing it, as a fraction of the training steps.
        batch: samples per step.
        steps: steps planned; `losses` holds those taken.
        rollbacks: how often the loss exploded and the run went back with half the learning rate.
        wall_s: time of the training in this process, in seconds.
        arithmetic: how forward and backward passes computed.
    """

    model: nn.Module
    metric: str
    higher_is_better: bool
    before: float
    score: float
    looks: tuple[tuple[int, float], ...]
    losses: tuple[float, ...]
    recipe: Recipe
    reason: str
    overhead: float
    batch: int
    steps: int
    rollbacks: int
    wall_s: float
    arithmetic: Arithmetic = PLAIN

    def words(self) -> tuple[str, ...]:
        """Return the run as lines to show."""
        ended = f" of {self.steps}, ended early" if len(self.losses) < self.steps else ""
        lines = [
            f"{self.metric} on the search split {self.before:.4f} -> {self.score:.4f}, after {len(self.losses)} steps"
            f"{ended}",
            f"optimizer {self.recipe!r}",
            f"because {self.reason}",
        ]
        if self.overhead:
            lines.append(f"choosing it cost {self.overhead:.1%} of the steps")
        if self.rollbacks:
            lines.append(
                f"the loss exploded {self.rollbacks} times; each time the run went back and halved the learning rate"
            )
        if (self.score - self.before) * (1 if self.higher_is_better else -1) < 0:
            lines.append("this is worse than before: lower the learning rate, or check the data")
        return tuple(lines)

    def as_json(self) -> dict[str, object]:
        """Return everything but the model as plain data."""
        values = {name: value for name, value in vars(self).items() if name not in ("model", "recipe")}
        values["arithmetic"] = str(self.arithmetic)
        return {"version": 1, **values, "optimizer": repr(self.recipe)}

    def save(self, folder: str | Path) -> Path:
        """Write `model.safetensors`, which `--weights` reads, and `training.json` into `folder`, made if missing.

        Raises:
            FolderError: if the folder cannot be written.
        """
        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
            for name, write in (
                (WEIGHTS, lambda path: save_model(self.model, str(path))),
                (REPORT, lambda path: path.write_text(json.dumps(self.as_json(), indent=1) + "\n")),
            ):
                draft = target / f".{name}.draft"
                write(draft)
                draft.replace(target / name)
        except OSError as error:
            raise FolderError(f"Cannot write the trained model to {target}: {error}.") from error
        return target


def learn(
    model: nn.Module,
    task: Task,
    objective_in: Callable[[Arithmetic], Objective],
    *,
    epochs: float | None = None,
    optimizer: str | Recipe = "auto",
    course: Course | None = None,
) -> Learned:
    """Train a copy of `model` on the task's training split: what `train` and `distill` share.

    Args:
        model: any module; not changed.
        task: splits and metric; the search split is looked at after each pass, the sealed one never.
        objective_in: gives the scalar to minimise, of (model, batch), computed in an arithmetic.
        epochs: passes over the training samples; with a budget of the course, whatever ends first; None takes 20.
        optimizer: name, recipe or `auto`.
        course: further dials.

    Raises:
        ModelError: if the model is an ONNX graph.
        DataError: if there are no training samples.
        ArgumentError: if the folder holds another run.
        DivergedError: if the loss does not stay finite even after the learning rate was halved several times.
    """
    refuse_graph(model, "Training")
    course = course or Course()
    if not len(task.train):
        raise DataError("There are no training samples. Give a `train` split.")
    split: Split = task.train
    if course.augment:
        split = Views(split, course.augment, course.views, course.seed)
    if course.start == "compressed":
        model = copy.deepcopy(model)
        reestimate_norms(model, task.calibration.batches(128, limit=512))
    asked = Asked(model, task, split, objective_in, epochs, optimizer, course)
    decided = decide(asked)
    if decided.arithmetic != PLAIN:
        course.told(f"passes compute in {decided.arithmetic}")
    course.told(f"{decided.recipe!r}, batch {decided.batch}, {decided.epochs:.3g} passes: {decided.reason}")
    if course.head_epochs:
        asked = replace(asked, model=_probed(asked, decided))
    return _learned(asked, decided)


def _probed(asked: Asked, decided: Decided) -> nn.Module:
    """Return the model after its last layer alone was trained, on features as they are in use."""
    course, model = asked.course, copy.deepcopy(asked.model)
    head, wanted = head_of(model, asked.task.inputs), [p.requires_grad for p in model.parameters()]
    model.requires_grad_(False)
    model.get_submodule(head).requires_grad_(True)

    objective = asked.objective_in(decided.arithmetic)

    def fixed(module: nn.Module, part: Batch) -> Tensor:
        module.eval()
        return objective(module, part)

    course.told(f"the last layer, {head!r}, alone; passes: {course.head_epochs:g}")
    batches = Epochs(asked.split, decided.batch, course.head_epochs, course.seed + 1)
    settings = replace(_settings(course, "head", len(batches)), in_place=True)
    fit(model, batches, objective=fixed, optimizer=AdamW(lr=3e-3), settings=settings)
    for parameter, required in zip(model.parameters(), wanted, strict=True):
        parameter.requires_grad_(required)
    return model


def _learned(asked: Asked, decided: Decided) -> Learned:
    course, metric = asked.course, asked.task.metric
    batches = Epochs(asked.split, decided.batch, decided.epochs, course.seed)
    settings = replace(
        _settings(course, "training", len(batches)),
        watch=_watch(asked, decided, len(batches)),
        average=course.average,
        layer_decay=course.layer_decay,
    )
    done = fit(
        asked.model,
        batches,
        objective=asked.objective_in(decided.arithmetic),
        optimizer=decided.recipe,
        schedule=decided.schedule,
        settings=settings,
    )
    looks = tuple((step, score if metric.higher_is_better else -score) for step, score in done.looks)
    return Learned(
        model=done.model,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        before=decided.before,
        score=looks[best_look(done.looks)][1],
        looks=looks,
        losses=done.losses,
        recipe=decided.recipe,
        reason=decided.reason,
        overhead=decided.overhead,
        batch=decided.batch,
        steps=len(batches),
        rollbacks=done.rollbacks,
        wall_s=done.wall_s,
        arithmetic=decided.arithmetic,
    )


def _watch(asked: Asked, decided: Decided, steps: int) -> Watch:
    """Return the watch that looks at the search split after each pass, at most `_LOOKS` times."""
    course, task = asked.course, asked.task
    sign, per_pass = 1 if task.metric.higher_is_better else -1, steps / decided.epochs
    every = math.ceil(per_pass * max(1, math.floor(decided.epochs / _LOOKS)))

    def seen(step: int, score: float) -> None:
        passes = f"pass {step / per_pass:.3g} of {decided.epochs:.3g}"
        course.told(f"{passes}: {task.metric.name} {sign * score:.4f} on the search split")

    return Watch(
        lambda shown: sign * evaluate(task.metric, shown, task.search, limit=LOOKED_AT),
        every=min(every, steps),
        patience=course.patience,
        listen=seen,
    )


def _settings(course: Course, name: str, steps: int) -> Settings:
    return Settings(
        clip=course.clip,
        seed=course.seed,
        checkpoint=course.folder / f"{name}.safetensors" if course.folder else None,
        every=min(200, max(20, steps // 50)),
        team=course.team,
        on_step=course.on_step,
    )
