"""The candidates of an ONNX graph that stays a graph: fused, in 16 bits, and in integers by the runtime's quantizer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tersor.errors import ArgumentError
from tersor.exporting.precision import precisions
from tersor.loading.onnx.graph_model import GraphModel
from tersor.loading.task import Task
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.onnx_graph import (
    Rounding,
    graph_schemes,
    halve_graph,
    optimize_graph,
    quantize_graph,
    site_of,
)
from tersor.search.candidate import Candidate
from tersor.search.integers import BITS, SCHEMES, WORDS
from tersor.search.request import METHODS
from tersor.search.run import Build, Run, attempt, calibration_inputs
from tersor.search.twins import Report
from tersor.search.unlearned import unlearned

#: Methods that a graph without layers has something for.
_ABLE = ("quantize", "weight_only")


def check_methods(methods: Sequence[str] | None, task: Task) -> None:
    """Refuse methods that were asked for by name and that an ONNX graph has nothing for.

    Args:
        methods: as they were given; None for the usual ones, of which those that do not fit are left out.
        task: its model.

    Raises:
        ArgumentError: naming them, with the reason.
    """
    if not isinstance(task.model, GraphModel) or methods is None:
        return
    wrong = [method for method in methods if method not in _ABLE]
    if wrong:
        raise ArgumentError(
            f"{' and '.join(wrong)} need{'s' * (len(wrong) == 1)} layers of torch, and this ONNX file stays a graph. "
            f"{task.model.why} Leave `methods` out, choose of {' and '.join(_ABLE)}, or pass the network in PyTorch."
        )


def make_from_graph(run: Run, report: Report) -> None:
    """Make every candidate of a graph until the time is up; each is handed to `report` as soon as it has a file."""
    model = run.task.model
    assert isinstance(model, GraphModel)
    left_out = [method for method in METHODS if method in run.request.methods and method not in _ABLE]
    if left_out:
        run.say("candidate", f"left out, because the ONNX file stays a graph: {', '.join(left_out)}")
    if model.quantized:
        run.say(
            "candidate", f"quantized already ({len(model.integers)} nodes in integers): not rounded again"
        )
    for name, why, build in _whole(run, model):
        if run.clock.left_s > 0:
            report(attempt(run, Candidate(name, Plan(), steps=(why,), why=why), build))
    for place, scheme in enumerate(graph_kinds(run)):
        if run.clock.left_s > 0:
            _in_integers(run, model, scheme, report, first=place == 0)


def _whole(run: Run, model: GraphModel) -> Iterator[tuple[str, str, Callable[[Candidate], Candidate]]]:
    """Yield name, reason and maker of the candidates that change every node in the same way."""

    def build(change: Callable[[GraphModel], GraphModel]) -> Callable[[Candidate], Candidate]:
        return lambda blank: _with(run, blank, change(model))

    yield "fused", "fold constants and fuse nodes ahead of time", build(optimize_graph)
    pays = run.request.goal in ("size", "memory") or "f16" in precisions(run.request.target)
    if not model.quantized and "weight_only" in run.request.methods and pays:
        yield "float16", "hold weights and compute in 16-bit floating point", build(halve_graph)


def _with(run: Run, blank: Candidate, made: GraphModel) -> Candidate:
    return replace(blank, model=made, parameters=run.base.parameters, macs=run.base.macs)


def graph_kinds(run: Run) -> tuple[str, ...]:
    """Return the kinds of integers that the request allows and that suit the graph, most promising first."""
    model = run.task.model
    assert isinstance(model, GraphModel)
    allowed = [kind for method in run.request.methods for kind in SCHEMES.get(method, ())]
    found = [kind for kind in graph_schemes(model, run.request.target) if kind in allowed]
    return unlearned(found, run.task)


def _in_integers(run: Run, model: GraphModel, scheme: str, report: Report, *, first: bool) -> None:
    """Report the graph in integers; where static ranges cost too much, other ranges, and its ends in floating point."""
    leave = _left_alone(run, model)
    layers = [name for name in model.layers if name not in leave]
    plain = scheme in ("static", "dynamic")
    name = ("int8" if first else f"int8 {scheme}") if plain else f"{scheme} weights"
    tries = [(name, WORDS[scheme], Rounding(scheme, leave=leave))]
    if scheme == "static":
        tries.append(
            (
                f"{name} percentile",
                "ranges without the outermost values",
                Rounding(scheme, "percentile", leave),
            )
        )
    if len(layers) > 2:
        ends = (*leave, layers[0], layers[-1])
        tries.append(
            (
                f"{name} inside",
                f"{layers[0]} and {layers[-1]} in floating point",
                Rounding(scheme, leave=ends),
            )
        )
    for title, words, how in tries:
        if run.clock.left_s <= 0:
            return
        steps = tuple(dict.fromkeys((WORDS[scheme], words)))
        blank = Candidate(
            title, Plan(), steps=steps, why="the graph in integers" if how is tries[0][2] else words
        )
        made = attempt(run, blank, _rounding(run, model, how))
        report(made)
        if made.quality is None or run.drop(made) < run.margin:
            return


def rounded_graph(run: Run, scheme: str) -> Build:
    """Return how to build the graph of the task in integers of a kind, as they are first tried."""
    model = run.task.model
    assert isinstance(model, GraphModel)
    return _rounding(run, model, Rounding(scheme, leave=_left_alone(run, model)))


def _left_alone(run: Run, model: GraphModel) -> tuple[str, ...]:
    return tuple(name for name in model.layers if run.request.leaves_alone(name))


def _rounding(run: Run, model: GraphModel, how: Rounding) -> Callable[[Candidate], Candidate]:
    def build(blank: Candidate) -> Candidate:
        made = quantize_graph(model, calibration_inputs(run.task), how)
        sites = dict.fromkeys(map(site_of, made.integers))
        plan = Plan(tuple(Quantize(site, *BITS[how.scheme]) for site in sites))
        return replace(_with(run, blank, made), plan=plan, float_model=model)

    return build
