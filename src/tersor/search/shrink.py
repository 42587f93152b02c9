"""One step down: cut a float model to a share of its multiply-adds, then bring it back by distillation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from torch import Tensor, nn

from tersor.analysis.collect import collect
from tersor.analysis.costs import mac_cost
from tersor.analysis.ties import ties
from tersor.errors import PlanError
from tersor.graph.groups import Group
from tersor.graph.trace import trace
from tersor.loading.task import Batch, Task
from tersor.planning.compose import compose
from tersor.planning.plan import Cut, Plan
from tersor.pruning.compensate import compensate
from tersor.pruning.criteria.fisher import Fisher
from tersor.pruning.score import score
from tersor.pruning.select import prune_to_budget
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.settings import Settings
from tersor.search.candidate import Candidate
from tersor.search.events import Event
from tersor.search.run import Run, counted
from tersor.surgery.apply import apply, close
from tersor.surgery.verify import verify

#: Samples whose gradients say which units matter.
_EVIDENCE_SAMPLES = 256
#: Cuts that fail their proof are made again without the groups at fault this often.
_ATTEMPTS = 4
#: Kernels of stock runtimes work on blocks of eight channels.
_BLOCK = 8


@dataclass(frozen=True, slots=True)
class Cutting:
    """A plan for a model, and the model it gives."""

    plan: Plan
    model: nn.Module


def cut(run: Run, model: nn.Module, share: float) -> Cutting:
    """Return `model` cut to `share` of the multiply-adds of the *original*, the least important units first.

    The result is proved: it equals `model` with the cut units excluded. Groups for which it does not are left whole,
    so that the worst case is a milder cut and never a wrong network.

    Raises:
        PlanError: if no unit may go, or the share cannot be reached.
    """
    graph = trace(model, run.task.inputs)
    together = ties(graph)
    groups = [group for group in graph.groups if group.prunable and not _left(run, group)]
    scores = _scores(run.task, model, groups)
    budget, block = share * run.base.macs, _block(groups)
    for _ in range(_ATTEMPTS):
        tied = tuple(names for names in together if set(names) <= set(scores))
        plan = prune_to_budget(scores, cost=mac_cost(graph), budget=budget, together=tied, multiple_of=block)
        plan = close(plan, graph, scores)
        verdict = verify(model, plan, graph, run.task.inputs)
        if verdict.ok:
            pruned = apply(model, plan, graph).model
            return Cutting(plan, compensate(pruned, model, graph, plan, _calibration(run.task)))
        wrong = {edit.group for edit in verdict.edits if isinstance(edit, Cut)}
        run.say(
            "candidate", f"left whole, because cutting it changes the function: {', '.join(sorted(wrong))}"
        )
        scores = {name: values for name, values in scores.items() if name not in wrong}
    raise PlanError(f"No cut to {share:.0%} of the multiply-adds could be verified in {_ATTEMPTS} attempts.")


def _scores(task: Task, model: nn.Module, groups: Sequence[Group]) -> dict[str, Tensor]:
    if not groups:
        raise PlanError("No group of this model can be cut; `tersor.groups` lists the reasons.")
    criterion = Fisher()
    evidence = collect(model, groups, _evidence_batches(task), fields=criterion.needs, loss=task.loss)
    return score(evidence, criterion)


def _left(run: Run, group: Group) -> bool:
    names = {group.name, *(member.tensor for member in group.members)}
    return any(run.request.leaves_alone(name) for name in names)


def _evidence_batches(task: Task) -> Sequence[Batch]:
    source = task.train if len(task.train) else task.calibration
    return tuple(islice(source.batches(32, shuffle=0), _EVIDENCE_SAMPLES // 32))


def _calibration(task: Task) -> Sequence[Batch]:
    return tuple(task.calibration.batches(32, limit=_EVIDENCE_SAMPLES))


def _block(groups: Sequence[Group]) -> int:
    return _BLOCK if min(group.size for group in groups) >= 2 * _BLOCK else 1


def shrink(run: Run, parent: Candidate, share: float, epochs: float) -> Callable[[Candidate], Candidate]:
    """Return how to build the candidate that keeps `share` of the multiply-adds, starting from `parent`."""

    def build(blank: Candidate) -> Candidate:
        assert parent.model is not None
        made = cut(run, parent.model, share)
        plan = compose(parent.plan, made.plan)
        recovered, losses = restore(run, made.model, epochs, blank.name)
        done = replace(blank, plan=plan, model=recovered, losses=losses)
        return counted(done, recovered, run.task.inputs)

    return build


def restore(run: Run, student: nn.Module, epochs: float, name: str) -> tuple[nn.Module, tuple[float, ...]]:
    """Return `student` after recovery with the original as teacher, and the loss of each step.

    Without training samples only statistics are re-estimated, on the calibration split.
    """
    train = run.task.train
    trains = bool(len(train)) and epochs > 0 and "distill" in run.request.methods
    settings = Settings(
        seed=run.request.seed,
        on_step=lambda step, steps, _: run.request.listen(Event("training", name, step, steps)),
    )
    ladder = Ladder(
        rungs=("norms", "distillation") if trains else ("norms",),
        task_kind=run.task.kind,
        training=settings,
        batch=min(128, max(1, len(train) // 4)) if trains else 128,
    )
    result = recover(
        student, run.task.model, train if trains else run.task.calibration, epochs=epochs, ladder=ladder
    )
    return result.model, result.losses
