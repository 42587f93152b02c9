"""One step down: make a float model smaller as a design says, then bring it back by distillation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from torch import Tensor, nn

from tersor.distillation.combined import with_labels
from tersor.distillation.rules import Loss, loss_for
from tersor.errors import PlanError
from tersor.factorization.factors import refactor
from tersor.graph.groups import Group
from tersor.graph.structure import Graph
from tersor.graph.trace import trace
from tersor.loading.task import Batch, Task
from tersor.planning.compose import compose
from tersor.planning.plan import Cut, Drop, Factorize, Plan
from tersor.planning.space import CUT, DROP, RANK, Design, Space
from tersor.pruning.compensate import compensate
from tersor.pruning.select import keep_highest
from tersor.recovery.arithmetic import PLAIN, Arithmetic
from tersor.recovery.mixing import mixable
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.settings import Settings
from tersor.recovery.teacher import live
from tersor.search.candidate import Candidate
from tersor.search.effort import batch_of, steps_in
from tersor.search.events import Event
from tersor.search.executors import Local
from tersor.search.harm import SAMPLES, space_of, unit_scores
from tersor.search.journal import TEACHER
from tersor.search.run import Build, Run, counted, placed, trains
from tersor.surgery.apply import apply, close
from tersor.surgery.verify import heal

#: A model after recovery, and the loss of each step.
Restored: TypeAlias = tuple[nn.Module, tuple[float, ...]]

#: Trainings of as many passes begin from plain cuts and show mixtures of samples, and those of as many steps learn from
#: labels too; for shorter ones a refitted start and the answers of the original to the samples are the quicker way back
#: (`bench.recovery.labels`, `labels_cifar`).
LONG, _LABELLED_STEPS = 40.0, 300
#: Weight of the labels where mixtures of samples are shown: they are those of the larger parts.
_BETWEEN = 0.3
#: Kinds of tasks whose labels help beside the teacher, and samples that show what the outputs are like.
_CLASSES, _FEW = ("classification", "multilabel"), 32
#: The words of `methods` that make a network smaller.
SHRINKING = (CUT, RANK, DROP)


@dataclass(frozen=True)
class Survey:
    """What can be done to one network, and what it would do.

    Attributes:
        model: the network, in floating point.
        graph: its trace.
        scores: of the units that may be cut.
        space: its designs.
    """

    model: nn.Module
    graph: Graph
    scores: Mapping[str, Tensor]
    space: Space

    def plan(self, design: Design) -> Plan:
        """Return the edits of a design; the units with the lowest scores go."""
        left = self.space.left(self.space.effective(design))
        cuts = tuple(Cut(name, keep_highest(self.scores[name], count)) for name, count in left.kept.items())
        drops = tuple(Drop(block) for block in sorted(left.dropped))
        return Plan((*cuts, *drops, *(Factorize(layer, rank) for layer, rank in left.ranks.items())))


def survey(run: Run, parent: Candidate, samples: int = SAMPLES) -> Survey:
    """Return what can be done to a candidate by the methods asked for, its units scored on so many samples.

    Raises:
        PlanError: if there is nothing to do.
    """
    assert parent.model is not None
    model, task = parent.model, run.task
    graph = trace(model, task.inputs)
    kinds = [kind for kind in SHRINKING if kind in run.request.methods]
    factors = {f"{edit.layer}.{part}" for edit in parent.plan.of(Factorize) for part in (0, 1)}
    # The inner units of a factorized layer are its rank, which was chosen already.
    ranks = {name for name in factors if name.endswith(".0")}
    groups = [g for g in graph.groups if g.prunable and g.name not in ranks and not _left(run, g)]
    scores = unit_scores(task, model, groups, samples) if CUT in kinds else {}
    left = {name for name, _ in model.named_modules() if run.request.leaves_alone(name)}
    holders = {block for block in graph.blocks if any(name.startswith(block + ".") for name in left)}
    space = space_of(task, model, graph, scores, left | factors | holders, kinds)
    if not space.units:
        raise PlanError("Nothing of this model can be made smaller; `tersor.groups` lists the reasons.")
    return Survey(model, graph, scores, space)


def _left(run: Run, group: Group) -> bool:
    names = {group.name, *(member.tensor for member in group.members)}
    return any(run.request.leaves_alone(name) for name in names)


@dataclass(frozen=True, slots=True)
class Stitched:
    """A smaller model whose weights were refitted layer by layer, before any training.

    Attributes:
        plan: what was done to the surveyed model.
        model: what it gave.
    """

    plan: Plan
    model: nn.Module


def stitch(run: Run, known: Survey, plan: Plan, *, refit: bool = True) -> Stitched:
    """Return the surveyed model after `plan`: cut, refitted, then blocks dropped and layers factorized.

    The result is proved: it equals the model with the cut units excluded. Groups for which it does not are left
    whole, so that the worst case is a milder plan and never a wrong network.

    Args:
        run: the search.
        known: what was surveyed.
        plan: what to do.
        refit: whether to refit what reads the cut units, on calibration samples. That is closer to the original at
            once; what is trained for long afterwards generalises better without it.

    Raises:
        PlanError: if nothing is left of the plan.
    """
    task, samples = run.task, _calibration(run.task)
    cuts = close(Plan(plan.of(Cut)), known.graph, known.scores)
    healed = heal(known.model, cuts, known.graph, task.inputs)
    if healed.left_out:
        wrong = ", ".join(sorted({edit.group for edit in healed.left_out if isinstance(edit, Cut)}))
        run.say("candidate", f"left whole, because cutting it changes the function: {wrong}")
    model, done = known.model, healed.plan
    if done.edits:
        model = apply(model, done, known.graph).model
        model = _compensated(model, known, done, samples) if refit else model
    rest = Plan((*plan.of(Drop), *plan.of(Factorize)))
    if rest.edits:
        model, rest = _with_rest(run, model, rest, samples)
    if not (done + rest).edits:
        raise PlanError("No edit of this plan could be verified.")
    return Stitched(done + rest, model)


def _compensated(model: nn.Module, known: Survey, done: Plan, samples: Sequence[Batch]) -> nn.Module:
    try:
        return compensate(model, known.model, known.graph, done, samples)
    except PlanError:  # only products of activations read what was cut: there is nothing to refit
        return model


def _with_rest(run: Run, model: nn.Module, rest: Plan, samples: Sequence[Batch]) -> tuple[nn.Module, Plan]:
    """Drop blocks and factorize layers of a model that was cut already."""
    graph = trace(model, run.task.inputs)
    possible = [edit for edit in rest.edits if not isinstance(edit, Factorize) or _saves(model, edit)]
    healed = heal(model, Plan(tuple(possible)), graph, run.task.inputs)
    made = apply(model, healed.plan, graph).model
    if healed.plan.of(Factorize):
        made = refactor(made, model, healed.plan, samples)
    return made, healed.plan


def _saves(model: nn.Module, edit: Factorize) -> bool:
    """Whether two factors are still smaller than what cuts left of the layer."""
    weight = model.get_parameter(f"{edit.layer}.weight")
    rows, columns = len(weight), weight[0].numel()
    return edit.rank * (rows + columns) < rows * columns


def _calibration(task: Task) -> Sequence[Batch]:
    return tuple(task.calibration.batches(32, limit=SAMPLES))


def shrink(run: Run, parent: Candidate, stitched: Stitched, epochs: float) -> Build:
    """Return how to build the candidate that a stitched model becomes by recovery."""

    def build(blank: Candidate) -> Candidate:
        plan = compose(parent.plan, stitched.plan)
        recovered, losses = restored(run, [stitched.model], epochs, blank.name)[0]()
        done = replace(blank, plan=plan, model=recovered, losses=losses)
        return counted(done, recovered, run.task.inputs)

    return build


def learns_labels(task: Task, epochs: float) -> bool:
    """Whether a recovery of so many passes learns from labels beside the teacher: a long one, of classes."""
    return steps_in(task, epochs) >= _LABELLED_STEPS and task.loss is not None and task.kind in _CLASSES


def shows_mixtures(task: Task, epochs: float) -> bool:
    """Whether a recovery of so many passes shows mixtures of samples: a long one, of inputs that can be mixed."""
    return epochs >= LONG and mixable(task.inputs)


def _loss(task: Task, epochs: float) -> Loss:
    """Return the loss of teacher and labels together."""
    batch = next(task.train.batches(_FEW))
    assert batch.target is not None
    assert task.loss is not None
    teacher = loss_for(live(task.model)(batch), batch.target, task.kind)
    if shows_mixtures(task, epochs):
        return with_labels(teacher, task.loss, alpha=_BETWEEN)
    return with_labels(teacher, task.loss)


def restore(
    run: Run,
    student: nn.Module,
    epochs: float,
    name: str,
    arithmetic: Arithmetic = PLAIN,
    memory: Path | None = None,
) -> Restored:
    """Return `student` after recovery with the original as teacher, and the loss of each step.

    Without training samples only statistics are re-estimated, on the calibration split. A `memory` keeps what the
    teacher answered from one recovery to the next.
    """
    train = run.task.train
    learns = epochs > 0 and trains(run)
    settings = Settings(
        seed=run.request.seed,
        arithmetic=arithmetic,
        on_step=lambda step, steps, _: run.request.listen(Event("training", name, step, steps)),
    )
    ladder = Ladder(
        rungs=("norms", "distillation") if learns else ("norms",),
        task_kind=run.task.kind,
        training=settings,
        batch=batch_of(run.task),
        cache=memory if learns else None,
        between=shows_mixtures(run.task, epochs),
    )
    result = recover(
        student,
        run.task.model,
        train if learns else run.task.calibration,
        epochs=epochs,
        loss=_loss(run.task, epochs) if learns and learns_labels(run.task, epochs) else None,
        ladder=ladder,
    )
    return result.model, result.losses


def restored(
    run: Run, students: Sequence[nn.Module], epochs: float, name: str
) -> list[Callable[[], Restored]]:
    """Begin `restore` for each of `students`, networks in floating point, wherever the search does its work.

    Returns how to wait for each.
    """
    # Another machine has no such folder.
    memory = run.journal.folder / TEACHER if isinstance(run.executor, Local) else None
    return placed(
        run, [partial(restore, run, student, epochs, name, run.arithmetic, memory) for student in students]
    )
