"""`train` and `distill`: a model and data come in, a trained model goes out."""

from dataclasses import replace

from torch import Tensor, nn

from tersor.distillation.rows import same_shape
from tersor.distillation.rules import Loss as TeacherLoss
from tersor.distillation.rules import loss_for
from tersor.distillation.sampled import SampledCrossEntropy
from tersor.errors import DataError
from tersor.loading.build import build_task
from tersor.loading.inputs import call, main_output
from tersor.loading.losses import Loss
from tersor.loading.split import Shares
from tersor.loading.task import Batch, Task
from tersor.optimizers.registry import Recipe
from tersor.recovery.arithmetic import Arithmetic
from tersor.recovery.cache import TeacherCache, drawn, fingerprint, wants_draws
from tersor.recovery.course import Course
from tersor.recovery.learn import Learned, learn
from tersor.recovery.loop import Objective
from tersor.recovery.norms import evaluating, on_device
from tersor.recovery.teacher import Teacher, imitation, live
from tersor.recovery.views import identity

_ENDLESS = 100_000


def train(
    model: nn.Module,
    data: object,
    *,
    epochs: float | None = None,
    optimizer: str | Recipe = "auto",
    loss: str | Loss | None = None,
    course: Course | None = None,
) -> Learned:
    """Train a copy of `model` on labelled data: from scratch, or from the weights it has.

    One data set is split by the content of its samples, as for `tersor.optimize`: the samples that a certificate will
    need stay unseen. The model is looked at on the search split after each pass, and the best weights come back.

    Args:
        model: any module; not changed.
        data: as for `tersor.optimize`.
        epochs: passes over the training samples; 20 where the course has no budget either.
        optimizer: name, recipe, or `auto`, which tries several on short schedules where the training is long enough.
        loss: name, function of (output, target), or None for the usual one.
        course: budget of time, head first, decay by layer, early stopping, running mean, resuming.

    Raises:
        DataError: if the data has no labels or no training samples.
        ArgumentError: if a word is unknown or a value is outside its range.
        DivergedError: if the loss does not stay finite even at a much lower learning rate.

    Example:
        >>> import torch
        >>> x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
        >>> learned = train(nn.Linear(2, 2), (x, (x[:, 0] > x[:, 1]).long()), epochs=5, optimizer="sgd")
        >>> learned.score > 0.9
        True
    """
    # Nothing is remembered by view, so there may be a new one each time.
    course = replace(course or Course(), views=_ENDLESS)
    task = build_task(
        model, data, metric=course.metric, loss=loss, shares=_shares(course), seed=course.seed
    ).task
    if task.kind == "fidelity" or task.loss is None:
        raise DataError(
            "The data has no labels, so there is nothing to train towards. Add a target, or `distill` from a teacher."
        )
    wanted = task.loss

    def objective_in(arithmetic: Arithmetic) -> Objective:
        def objective(module: nn.Module, batch: Batch) -> Tensor:
            output = arithmetic.output(module, batch.inputs)
            assert batch.target is not None
            return wanted(output, batch.target.to(output.device))

        return objective

    return learn(
        model,
        task,
        objective_in,
        epochs=epochs,
        optimizer=optimizer,
        course=course,
    )


def distill(
    student: nn.Module,
    teacher: nn.Module,
    data: object,
    *,
    epochs: float | None = None,
    optimizer: str | Recipe = "auto",
    loss: TeacherLoss | None = None,
    course: Course | None = None,
) -> Learned:
    """Train a copy of `student` to answer as `teacher` does; labels are not needed.

    The teacher is asked once for each view of a sample. Where there are labels, the student is measured by them.

    Args:
        student: any module with the teacher's inputs and outputs; not changed.
        teacher: the trained model; not changed.
        data: as for `tersor.optimize`.
        epochs: passes over the training samples; 20 where the course has no budget either.
        optimizer: name, recipe, or `auto`, which tries several on short schedules where the training is long enough.
        loss: a distillation loss; None takes the one that fits the task.
        course: as for `train`; `start="compressed"` for a student cut from the teacher.

    Raises:
        DataError: if the data has no training samples.
        ArgumentError: if student and teacher give outputs of different shape.
        DivergedError: if the loss does not stay finite even at a much lower learning rate.
    """
    course = course or Course()
    task = build_task(teacher, data, metric=course.metric, shares=_shares(course), seed=course.seed).task
    if not len(task.train):
        raise DataError("There are no training samples to distil with. Give a `train` split.")
    first = next(task.train.batches(min(128, len(task.train))))
    answer = live(task.model)
    wanted = answer(first)
    with evaluating(student):
        same_shape(main_output(call(student, on_device(student, first.inputs))), wanted)
    chosen = loss or loss_for(wanted, first.target, task.kind)
    if loss is None and wants_draws(task.kind, wanted):
        answer, chosen = drawn(answer, seed=course.seed), SampledCrossEntropy()
    course.told(f"the student imitates the teacher by {chosen!r}")
    kept = _kept(answer, task, epochs, course)
    return learn(
        student,
        task,
        lambda arithmetic: imitation(kept, chosen, arithmetic),
        epochs=epochs,
        optimizer=optimizer,
        course=course,
    )


def _shares(course: Course) -> Shares:
    return Shares(leave_out_copies=course.leave_out_copies)


def _kept(answer: Teacher, task: Task, epochs: float | None, course: Course) -> Teacher:
    """Return the teacher, with a memory where its answers are asked for again."""
    views = course.views if course.augment else 1
    if epochs is not None and epochs <= views:
        return answer
    key = fingerprint(task.model, len(task.train), identity(course.augment), views, course.seed)
    folder = course.folder / "teacher" if course.folder else None
    if folder and course.team:
        folder = folder / str(course.team.index)
    return TeacherCache(answer, views * len(task.train), folder=folder, key=key)
