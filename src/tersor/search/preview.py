"""What a search would do, said in seconds: what can be changed, what can be certified, and how long it would take."""

import time

from tersor.analysis.facts import facts
from tersor.certification.planner import samples_needed, smallest_margin
from tersor.exporting.export import RUNTIMES
from tersor.graph.trace import trace
from tersor.loading.evaluate import evaluate
from tersor.loading.limit import parse_drop
from tersor.loading.onnx.graph_model import GraphModel
from tersor.loading.task import Task
from tersor.quantization.onnx_graph import graph_schemes
from tersor.quantization.quantize import sites
from tersor.search.clock import Clock
from tersor.search.effort import plan_effort
from tersor.search.request import AUTO, METHODS, Request, installed_targets
from tersor.search.unlearned import ABLE, unlearned

#: Share of samples on which a compressed network usually answers differently; only for a first estimate.
_LIKELY_DISAGREEMENT = 0.02
#: Groups that cannot be cut of which the reason is said.
_REASONS = 5
#: Seconds of a candidate besides its training, of start and end, and a time that is never short.
_EACH_S, _ENDS_S, _AMPLE_S = 4.0, 50.0, 1e9


def preview(task: Task, max_drop: str | float) -> tuple[str, ...]:
    """Return lines on the model's size, its groups, the runtimes at hand and the smallest margin.

    Args:
        task: model and data, bound.
        max_drop: largest loss, as in `tersor.optimize`.
    """
    return (*_model(task), f"limit   a drop of {parse_drop(max_drop)}", *_sealed(task))


def outline(task: Task, request: Request) -> tuple[str, ...]:
    """Return what `tersor.optimize` would do with `request`: methods and why not others, the certificate, the time.

    Args:
        task: model and data, bound.
        request: what is asked for.
    """
    value = evaluate(task.metric, task.model, task.search)
    words = request.drop.words(task.metric.name, value, task.metric.higher_is_better)
    wanted = [f"goal    {request.goal} in {_targets(request)}", f"limit   {words}"]
    wanted += [f"limit   {request.limits}"] if request.limits else []
    margin = request.drop.margin(value)
    return (*_model(task), *wanted, *_methods(task, request), *_sealed(task, margin), _time(task, request))


def _targets(request: Request) -> str:
    if AUTO not in request.targets:
        return " and ".join(request.targets)
    first, *others = installed_targets()
    if not others:
        return f"{first}, the only runtime installed here that models are made for"
    if request.goal == "size":
        return f"{first}, as files weigh the same in every runtime"
    return f"whichever of {' and '.join((first, *others))} a race of the original's files shows to be best"


def _model(task: Task) -> tuple[str, ...]:
    costs = facts(task.model, task.inputs)
    ready = ", ".join(name for name, kind in RUNTIMES.items() if not kind.missing())
    size = f"model   {costs.parameters:,} parameters, {costs.macs:,} multiply-adds a sample"
    if isinstance(task.model, GraphModel):
        rounded = len(task.model.integers)
        have = (
            f"quantized already, {rounded} nodes in integers"
            if rounded
            else f"{len(task.model.layers)} layers"
        )
        return size, f"graph   an ONNX file that stays a graph, {have}", f"runtime {ready}"
    groups = trace(task.model, task.inputs).groups
    prunable = [group for group in groups if group.prunable]
    kinds = ", ".join(sorted({group.kind for group in prunable})) or "none"
    return (
        size,
        f"groups  {len(prunable)} of {len(groups)} can be pruned ({kinds})",
        f"runtime {ready}",
    )


def _sealed(task: Task, margin: float | None = None) -> tuple[str, ...]:
    """Return what the certification samples can show; with a `margin`, whether they do for it."""
    samples = len(task.certification)
    if task.metric.scores is None:
        return ()
    least = smallest_margin(samples, _LIKELY_DISAGREEMENT)
    line = (
        f"sealed  {samples:,} samples can certify a drop of about {least:.2g} or more, if the models differ on 2 "
        "samples in 100"
    )
    if margin is None or margin >= least:
        return (line,)
    needed = samples_needed(margin, _LIKELY_DISAGREEMENT)
    return line, f"sealed  the margin of {margin:.2g} then takes about {needed:,} samples"


def _methods(task: Task, request: Request) -> tuple[str, ...]:
    """Return for each method how much of the model it applies to, or why it is not used."""
    if isinstance(task.model, GraphModel):
        runtime = installed_targets()[0] if request.target == AUTO else request.target
        kinds = ", ".join(unlearned(graph_schemes(task.model, runtime), task)) or "none"
        return (f"method  fusing ahead of time; integers: {kinds}",)
    graph = trace(task.model, task.inputs)
    left = [name for name, _ in task.model.named_modules() if name and request.leaves_alone(name)]
    found = {
        "prune": _count(
            sum(group.prunable for group in graph.groups), "group of channels, heads or features"
        ),
        "quantize": _count(len(sites(task.model, task.inputs)), "layer that can run in integers"),
        "drop": _count(len(graph.blocks), "residual block"),
        "distill": _count(len(task.train), "training sample"),
    }
    lines = []
    for method in METHODS:
        words = found.get(method, "where it is predicted to pay")
        if method not in request.methods:
            words = "learns from data" if task.drawn and method not in ABLE else "not asked for"
        lines.append(f"method  {method}: {words or 'not used, the model and data have nothing for it'}")
    reasons = [f"method  prune leaves {g.name} whole: {g.reason}" for g in graph.groups if not g.prunable]
    more = [f"method  ... and {len(reasons) - _REASONS} more groups"] if len(reasons) > _REASONS else []
    alone = [f"leave   {len(left)} layers as asked: {', '.join(left[:8])}"] if left else []
    return (*lines, *reasons[:_REASONS], *more, *alone)


def _count(number: int, noun: str) -> str:
    if not number:
        return ""
    first, _, rest = noun.partition(" ")
    return f"{number:,} {first}{'s' if number > 1 else ''} {rest}".rstrip()


def _time(task: Task, request: Request) -> str:
    """Return an estimate of the time, from a few training steps of the original."""
    begun_s = time.monotonic()
    if isinstance(task.model, GraphModel) and request.budget_s is None:
        return f"time    about {_EACH_S * 6 + _ENDS_S:,.0f} s without a budget"
    effort = plan_effort(task, Clock(_AMPLE_S))
    if request.budget_s is not None:
        return f"time    {request.budget_s:,.0f} s as asked for, certification and report included"
    training_s = len(effort.shares) * effort.epochs * (effort.epoch_s or 0.0)
    rest_s = _EACH_S * 2 * len(effort.shares) + _ENDS_S + (time.monotonic() - begun_s)
    return f"time    about {training_s + rest_s:,.0f} s without a budget, of which {training_s:,.0f} s train"
