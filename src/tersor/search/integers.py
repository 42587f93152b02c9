"""One step sideways: the same network in integers, trained in integers if rounding costs too much."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, fx

from tersor.errors import TersorError
from tersor.graph.trace import named_tensors
from tersor.loading.task import Task
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.build import build as build_integers
from tersor.quantization.build import names_of
from tersor.quantization.insert import table_calls
from tersor.quantization.model import QuantizedModel
from tersor.quantization.recipe import Recipe
from tersor.quantization.schemes import KERNELS, schemes
from tersor.quantization.tables import site_of_table
from tersor.search.candidate import Candidate
from tersor.search.prices import BYTES
from tersor.search.run import Build, Run, calibration_inputs, codes_for, placed
from tersor.search.shrink import restore
from tersor.search.stored import Grid, remade
from tersor.search.unlearned import unlearned

#: What each method of the request allows.
SCHEMES = {"quantize": ("static", "dynamic"), "weight_only": ("int8", "int4")}
#: With less time, and speed for a goal, weights alone are not rounded: that seldom makes a small network faster.
_TIGHT_S = 240.0
#: Bits of weight and activation codes of each scheme.
BITS = {"static": (8, 8), "dynamic": (8, 8), "int8": (8, 0), "int4": (4, 0)}
#: How a scheme is called in the name of a candidate.
WORDS = {
    "static": "round weights and activations to 8-bit integers",
    "dynamic": "round weights to 8-bit integers, and activations as they come",
    "int8": "round weights alone to 8-bit integers",
    "int4": "round weights alone to 4-bit integers",
}


def schemes_for(run: Run) -> tuple[str, ...]:
    """Return the integer schemes that the request allows and that suit the original, most promising first."""
    allowed = [kind for method in run.request.methods for kind in SCHEMES.get(method, ())]
    if not allowed:
        return ()
    try:
        found = schemes(run.task.model, run.task.inputs, run.request.target)
        if "executorch" in run.request.targets:
            found = tuple(kind for kind in found if kind in KERNELS["executorch"])
    except TersorError as error:
        run.say("candidate", f"no integers: {str(error).strip().partition(chr(10))[0]}")
        return ()
    tight = run.request.goal not in BYTES and run.clock.left_s < _TIGHT_S
    if tight and not run.task.drawn:  # without data there is little else to spend the time on
        allowed = [kind for kind in allowed if kind not in SCHEMES["weight_only"]]
    return unlearned([kind for kind in found if kind in allowed], run.task)


def in_integers(run: Run, parent: Candidate, scheme: str, *, epochs: float = 0.0) -> Build:
    """Return how to build the integer twin of `parent`.

    Args:
        run: the search.
        parent: a candidate in floating point.
        scheme: kind of integers.
        epochs: passes of training in integers, with the original as teacher; 0 rounds after training.
    """

    def build(blank: Candidate) -> Candidate:
        assert parent.model is not None
        graph, samples = run.captures.of(parent.model, run.task.inputs), calibration_inputs(run.task)
        plan = allowed_sites(run, graph, scheme)
        model = build_integers(graph, samples, codes_for(run, scheme), plan, Recipe())
        trained, losses = restore(run, model, epochs, blank.name) if epochs else (model, ())
        return replace(twin_of(blank, parent, model, scheme), model=trained, losses=losses)

    return build


def twin_of(blank: Candidate, parent: Candidate, model: QuantizedModel, scheme: str) -> Candidate:
    """Return `blank` with a model that runs the network of `parent` in integers."""
    return replace(
        blank,
        plan=parent.plan + Plan(_edits(model, scheme)),
        model=model,
        float_model=parent.model,
        parameters=parent.parameters,
        macs=parent.macs,
    )


def _edits(model: QuantizedModel, scheme: str) -> tuple[Quantize, ...]:
    tables = {site_of_table(lookup) for lookup, _ in table_calls(model.graph_module)}
    return tuple(
        Quantize(name, *(BITS["int8"] if name in tables else BITS[scheme])) for name in model.integers
    )


@dataclass(frozen=True, slots=True)
class Twin:
    """An integer twin that may travel: what crosses is its tensors, for the graph that holds them cannot.

    Attributes:
        task: what it was made for.
        made: the twin.
    """

    task: Task
    made: Candidate

    def __reduce__(self) -> tuple[Callable[..., "Twin"], tuple[object, ...]]:
        model = self.made.model
        assert isinstance(model, QuantizedModel)
        tensors = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
        return _put_together, (
            self.task,
            replace(self.made, model=None),
            Grid(model.scheme, model.recipe),
            tensors,
        )


def _put_together(task: Task, bare: Candidate, grid: Grid, tensors: Mapping[str, Tensor]) -> Twin:
    # Where the graph is placed does not depend on samples, and what they say is replaced: one batch is enough.
    return Twin(task, remade(bare, grid, tensors, task.inputs, calibration_inputs(task, 1, 32)))


def begun(run: Run, jobs: Sequence[tuple[Candidate, Build]]) -> list[Build]:
    """Begin to build integer twins wherever the search does its work; return, in their order, how to get each.

    What the journal holds already is not begun: `attempt` takes it from there.
    """
    known = run.journal.names()
    fresh = [(blank, build) for blank, build in jobs if blank.name not in known]
    waits = iter(placed(run, [partial(_twin, run.task, build, blank) for blank, build in fresh]))
    return [build if blank.name in known else _waiting(next(waits)) for blank, build in jobs]


def _twin(task: Task, build: Build, blank: Candidate) -> Twin:
    return Twin(task, build(blank))


def _waiting(result: Callable[[], Twin]) -> Build:
    return lambda _: result().made


def allowed_sites(run: Run, graph: fx.GraphModule, scheme: str) -> Plan | None:
    """Return the sites of a captured network that may be rounded; None stands for all."""
    if not run.request.leave:
        return None
    names = names_of(graph.graph)
    return Plan(tuple(Quantize(name, *BITS[scheme]) for name in names if not run.request.leaves_alone(name)))
