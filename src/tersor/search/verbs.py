"""The single verbs `prune`, `factorize` and `distill`: one method, one call, the same parts as the search."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from tersor._check import fraction, one_of
from tersor.analysis.collect import collect
from tersor.analysis.costs import mac_cost
from tersor.distillation.rules import Loss, loss_for
from tersor.errors import DataError, PlanError
from tersor.factorization.ranks import factorize_energy
from tersor.factorization.spectrum import spectra
from tersor.graph.structure import Graph
from tersor.graph.trace import trace
from tersor.loading.build import build_task
from tersor.loading.inputs import as_inputs
from tersor.loading.task import Batch, Task
from tersor.optimizers.auto import choose
from tersor.optimizers.registry import Recipe
from tersor.planning.plan import Plan
from tersor.pruning.criteria.registry import make_criterion
from tersor.pruning.score import score
from tersor.pruning.select import prune_global, prune_to_budget, prune_uniform
from tersor.recovery.epochs import Epochs
from tersor.recovery.recover import Ladder, Recovered, recover
from tersor.recovery.settings import Settings
from tersor.recovery.teacher import imitation, live
from tersor.surgery.apply import apply, close
from tersor.surgery.verify import verify

Scores = Mapping[str, Tensor]
_BATCH = 128

_SELECT: dict[str, Callable[[Scores, float, Graph], Plan]] = {
    "macs": lambda scores, ratio, graph: prune_to_budget(
        scores, cost=mac_cost(graph), budget=(1 - ratio) * graph.macs()
    ),
    "global": lambda scores, ratio, _: prune_global(scores, ratio=ratio),
    "uniform": lambda scores, ratio, _: prune_uniform(scores, ratio=ratio),
}


class Changed(NamedTuple):
    """A new model and the plan that made it."""

    model: nn.Module
    plan: Plan


def prune(
    model: nn.Module,
    inputs: object,
    *,
    ratio: float,
    by: str = "macs",
    criterion: str = "magnitude",
    batches: Iterable[Batch] = (),
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Changed:
    """Return a smaller copy of `model` without its least important units, proved to be the original without them.

    Args:
        model: any module that runs one forward pass; not changed.
        inputs: example inputs: a tensor, a tuple, or a mapping of names.
        ratio: fraction removed, in [0, 1).
        by: what `ratio` counts: `macs` (multiply-adds of the whole model), `global` (units, ranked together) or
            `uniform` (units of every group).
        criterion: name of a criterion, such as `magnitude`, `taylor`, `activation` or `random`.
        batches: calibration data, for criteria that need more than weights.
        loss: scalar loss of (output, target), for criteria that need gradients; without one they are taken of the
            outputs.

    Raises:
        ArgumentError: if a name is unknown or `ratio` is no fraction.
        PlanError: if nothing can be cut that far, or the result fails its proof; it names the groups at fault.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> prune(net, torch.randn(2, 4), ratio=0.5).model
        Sequential(
          (0): Linear(in_features=4, out_features=4, bias=True)
          (1): ReLU()
          (2): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    ratio, select = fraction("ratio", ratio), _SELECT[one_of("by", by, _SELECT)]
    rule, example = make_criterion(criterion), as_inputs(inputs)
    graph = trace(model, example)
    samples = list(batches) or [Batch(example, None, ())]
    evidence = collect(model, graph.groups, samples, fields=rule.needs, loss=loss)
    scores = score(evidence, rule)
    plan = close(select(scores, ratio, graph), graph, scores)
    verdict = verify(model, plan, graph, example)
    if not verdict.ok:
        raise PlanError(f"The pruned model is not the original without the cut units: {verdict}.")
    return Changed(apply(model, plan, graph).model, plan)


def factorize(
    model: nn.Module, inputs: object, *, energy: float = 0.99, batches: Iterable[Batch] = ()
) -> Changed:
    """Return a copy of `model` whose linear and convolution weights are products of two smaller ones, where that pays.

    Args:
        model: any module; not changed.
        inputs: example inputs.
        energy: share of the squared singular values kept in every layer, in [0, 1).
        batches: calibration data; with it, energy is that of the layers' outputs.

    Raises:
        ArgumentError: if `energy` is no fraction.
        PlanError: if no layer gets cheaper at this energy.

    Example:
        >>> import torch
        >>> thin = nn.Linear(32, 1, bias=False).weight.detach()
        >>> net = nn.Linear(32, 32, bias=False)
        >>> _ = net.load_state_dict({"weight": thin.T @ thin})
        >>> factorize(nn.Sequential(net), torch.randn(2, 32)).plan.edits
        (Factorize(layer='0', rank=1),)
    """
    example = as_inputs(inputs)
    plan = factorize_energy(spectra(model, example, batches=batches), energy=energy)
    return Changed(apply(model, plan, trace(model, example)).model, plan)


def distill(
    student: nn.Module,
    teacher: nn.Module,
    data: object,
    *,
    epochs: float = 10.0,
    loss: Loss | None = None,
    optimizer: str | Recipe = "auto",
    seed: int = 0,
) -> Recovered:
    """Train a copy of `student` to answer as `teacher` does.

    Args:
        student: any module with the teacher's inputs and outputs; not changed.
        teacher: the trained model; not changed.
        data: as for `tersor.optimize`; its training split is used.
        epochs: passes over the training split.
        loss: a distillation loss; None takes the one that fits the task.
        optimizer: name, recipe, or `auto`, which tries several on short schedules where the training is long.
        seed: of the order of samples.

    Raises:
        DataError: if the data has no training samples.
        ArgumentError: if student and teacher give outputs of different shape.
    """
    task = build_task(teacher, data, seed=seed).task
    if not len(task.train):
        raise DataError("There are no training samples to distil with. Give a `train` split.")
    batch = min(_BATCH, len(task.train))
    if optimizer == "auto":
        optimizer = _chosen(student, task, epochs, batch, loss)
    settings = Settings(seed=seed)
    ladder = Ladder(rungs=("distillation",), task_kind=task.kind, training=settings, batch=batch)
    return recover(
        student, task.model, task.train, epochs=epochs, loss=loss, optimizer=optimizer, ladder=ladder
    )


def _chosen(student: nn.Module, task: Task, epochs: float, batch: int, loss: Loss | None) -> Recipe:
    """Return the recipe that learns best from the teacher, for a student that starts from scratch."""
    answer = live(task.model)
    first = next(task.train.batches(batch))
    objective = imitation(answer, loss or loss_for(answer(first), first.target, task.kind))
    batches = Epochs(task.train, size=batch, epochs=1)
    probe = list(task.search.batches(_BATCH, limit=2 * _BATCH))
    return choose(student, batches, objective, steps=max(1, round(epochs * len(batches))), probe=probe).recipe
