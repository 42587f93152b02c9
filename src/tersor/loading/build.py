"""Model and data in, a checked Task out, with every decision in words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isinf
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tersor._check import one_of
from tersor.errors import ArgumentError, DataError, TersorError
from tersor.loading.binding import Binding, make_binding
from tersor.loading.choose import choose_loss, choose_metric
from tersor.loading.data import load_data
from tersor.loading.declared import drawn_reference
from tersor.loading.divide import Pool, SplitPlan, divide
from tersor.loading.drawn import refuse_mixture
from tersor.loading.fidelity import Answered
from tersor.loading.inputs import Inputs, call, device_of, example, flatten, main_output, map_tensors
from tersor.loading.losses import LOSSES, Loss
from tersor.loading.metric import Metric
from tersor.loading.metrics import METRICS
from tersor.loading.model import copied, load_model
from tersor.loading.onnx.graph_model import GraphModel
from tersor.loading.references import first_line
from tersor.loading.setting import Setting, infer_setting, run_once
from tersor.loading.sources import Source
from tersor.loading.split import Shares
from tersor.loading.survey import TargetFacts, survey, walk
from tersor.loading.task import Split, Task

#: Samples on which metric and loss are tried.
_TRIED = 64
#: Part of the metric's range within which a model that ignores its input makes the metric say little.
_ALIKE = 0.1


@dataclass(frozen=True, slots=True)
class Notes:
    """Every decision of `build_task`, for `tersor check` and the report.

    Attributes:
        binding: how a batch becomes arguments and target.
        setting: kind of the task, outputs and classes, and why.
        splits: who got which samples.
        metric: the metric, and whether it was given or inferred.
        loss: likewise.
        warnings: what the user must not overlook.
    """

    binding: Binding
    setting: Setting
    splits: SplitPlan
    metric: str
    loss: str
    warnings: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        """Return all decisions as lines to show."""
        kind = f"{self.setting.kind} ({self.setting.why}); output [{', '.join(['N', *map(str, self.setting.outputs)])}]"
        titled = {
            "bind": self.binding.words(),
            "task": (kind,),
            "split": self.splits.words(),
            "metric": (self.metric,),
            "loss": (self.loss,),
            "warning": self.warnings,
        }
        return tuple(f"{title:<8}{line}" for title, lines in titled.items() for line in lines)


class Built(NamedTuple):
    """A task and the notes on how it came about."""

    task: Task
    notes: Notes


def build_task(
    model: nn.Module,
    data: object,
    *,
    metric: str | Callable[..., Any] | Metric | None = None,
    loss: str | Loss | None = None,
    target: str | None = None,
    shares: Shares | None = None,
    seed: int = 0,
) -> Built:
    """Bind the data to the model, split it, choose metric and loss, and check that it all goes together.

    Args:
        model: any module, Keras model or reference that `load_model` takes; it is copied, never changed.
        data: whatever `load_data` takes: one set (then split by a hash of its content) or explicit splits; None for
            inputs drawn at random, of the form that the model says it takes.
        metric: a name, `f(preds, target)`, `f(model, loader)`, `module:function`, or None to infer it.
        loss: a name, `f(output, target)`, or None for the usual one of the task.
        target: key or position of the target in a batch, where it cannot be guessed.
        shares: how one data set is divided.
        seed: of the draw of calibration samples; the split depends on nothing but the content of the samples.

    Returns:
        The task, and notes that say in words what was decided.

    Raises:
        ModelError: if the model cannot be copied or run.
        DataError: if the data cannot be read, bound, split or answered.
        ArgumentError: if the metric or loss is unknown or does not fit.

    Example:
        >>> x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
        >>> task, notes = build_task(nn.Linear(3, 2), (x, (x[:, 0] > 0).long()))
        >>> task.kind, task.metric.name, len(task.certification)
        ('classification', 'accuracy', 621)
    """
    if isinstance(metric, str) and ":" not in metric:
        one_of("metric", metric, METRICS)
    if isinstance(loss, str):
        one_of("loss", loss, LOSSES)
    model = copied(load_model(model)).eval()
    sources = load_data(drawn_reference(model) if data is None else data)
    drawn = refuse_mixture(sources)
    binding = make_binding(model, _first_batch(sources), target=target)
    pools = {name: Pool(source, survey(source, binding, name)) for name, source in sources.items()}
    parts, plan = divide(pools, binding, shares or Shares(), seed)
    facts = _facts([pool.survey.targets for pool in pools.values()])
    setting, inputs = _try(model, parts["search"], facts, plan)
    splits: dict[str, Split] = dict(parts)
    if facts is None:
        splits = {name: Answered(part, model) for name, part in parts.items()}
    else:
        _check_labels(setting, facts, next(iter(pools)))
    chosen, metric_words = choose_metric(metric, setting)
    if drawn:  # so that no sentence names the number without saying what it was taken on
        chosen = replace(chosen, name=f"{chosen.name} on random inputs")
    trained, loss_words = choose_loss(loss, setting)
    task = Task(
        model=model, **splits, metric=chosen, loss=trained, inputs=inputs, kind=setting.kind, drawn=drawn
    )
    _check_use(task)
    return Built(task, Notes(binding, setting, plan, metric_words, loss_words, _warnings(setting, task)))


def _first_batch(sources: Mapping[str, Source]) -> Any:
    name, source = next(iter(sources.items()))
    batch = next(walk(source), None)
    if batch is None:
        raise DataError(f"The {name} data is empty. Check the path, the filter or the slice that makes it.")
    return batch


def _facts(found: list[TargetFacts | None]) -> TargetFacts | None:
    """Join the facts of all sets; None if the data has no labels at all."""
    known = [facts for facts in found if facts is not None]
    if not known:
        return None
    joined = known[0]
    for facts in known[1:]:
        joined = joined | facts
    return joined


def _try(model: nn.Module, part: Split, facts: TargetFacts | None, plan: SplitPlan) -> tuple[Setting, Inputs]:
    """Run the model once and conclude what kind of task this is."""
    batch = next(part.batches(8, limit=8))
    device = device_of(model)
    inputs = map_tensors(lambda t: t.to(device), batch.inputs)
    shown = ", ".join(str(list(t.shape)) for t in flatten(inputs))
    output, activation, returned = run_once(model, inputs, shown)
    setting = infer_setting(
        output.cpu(), activation, facts, inputs=batch.inputs, target=batch.target, returned=returned
    )
    low, high = plan.span
    return replace(setting, low=low, high=high), example(batch.inputs, 2)


def _check_labels(setting: Setting, facts: TargetFacts, name: str) -> None:
    """Refuse labels that the outputs cannot give, and labels that are all the same."""
    if setting.kind in ("regression", "multilabel") or setting.one_hot:
        if facts.low == facts.high and setting.kind == "regression":
            raise DataError(
                f"Every target of the {name} data is {facts.low:g}; a constant shows nothing. Check the column."
            )
        return
    if facts.low < 0 or facts.high >= setting.classes:
        worst = facts.low if facts.low < 0 else facts.high
        raise DataError(
            f"Label {worst:g} is out of range: the model tells {setting.classes} classes apart, so labels go from 0 to "
            f"{setting.classes - 1}. Renumber the labels, or give ignored positions the label -100."
        )
    if facts.low == facts.high:
        raise DataError(
            f"Every label of the {name} data is {facts.low:g}; one class shows nothing. Is the target the right column?"
        )


def _check_use(task: Task) -> None:
    """Call metric and loss once on the first search samples, so that their faults show now."""
    batch = next(task.search.batches(_TRIED, limit=_TRIED))
    device = device_of(task.model)
    with torch.no_grad():
        output = main_output(call(task.model, map_tensors(lambda t: t.to(device), batch.inputs)))
    if batch.target is None:
        return
    if task.metric.of_model is None:
        _attempt("metric", task.metric.name, task.metric.value, output.cpu(), batch.target)
    if task.loss is not None:
        _attempt("loss", "given", task.loss, output.cpu(), batch.target)


def _attempt(
    what: str, name: str, function: Callable[[Tensor, Tensor], Any], output: Tensor, target: Tensor
) -> None:
    try:
        with torch.no_grad():
            function(output, target)
    except TersorError:
        raise
    except Exception as cause:  # the user's function may raise anything
        raise ArgumentError(
            f"The {what} {name!r} failed on outputs {list(output.shape)} and targets {list(target.shape)}: "
            f"{first_line(cause)}"
        ) from cause


def _warnings(setting: Setting, task: Task) -> tuple[str, ...]:
    found, model = (), task.model
    if task.drawn:
        found += (
            f"the inputs were DRAWN AT RANDOM ({task.drawn}) and are not your data: what is shown is likeness to the "
            "original's outputs on such inputs, and nothing about real ones",
            *_much_alike(task),
        )
    elif setting.kind == "fidelity":
        found += (
            "the data has no labels: quality is likeness to the original's outputs, and the certificate says only that",
        )
    if isinstance(model, GraphModel):
        found += (f"the ONNX file stays a graph, without layers to prune or train. {model.why}",)
    return found


def _much_alike(task: Task) -> tuple[str, ...]:
    """Warn where the original answers random inputs so much alike that likeness to it shows little."""
    answers = next(task.search.batches(_TRIED, limit=_TRIED)).target
    low, high = task.metric.bounds
    if task.metric.scores is None or answers is None or isinf(high - low):
        return ()
    reached = task.metric.value(answers.roll(1, dims=0), answers)
    if high - reached > _ALIKE * (high - low):
        return ()
    return (
        f"the original gives random inputs much the same answers: one that ignores its input would reach "
        f"{task.metric.name} {reached:.2f}, so this metric shows little here",
    )
