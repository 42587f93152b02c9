"""One step sideways: the same network in integers, trained in integers if rounding costs too much."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from tersor.planning.plan import Plan, Quantize
from tersor.quantization.quantize import quantize, sites
from tersor.search.candidate import Candidate
from tersor.search.run import Run, calibration_inputs
from tersor.search.shrink import restore


def in_integers(run: Run, parent: Candidate, *, epochs: float = 0.0) -> Callable[[Candidate], Candidate]:
    """Return how to build the integer twin of `parent`.

    Args:
        run: the search.
        parent: a candidate in floating point.
        epochs: passes of training in integers, with the original as teacher; 0 rounds after training.
    """

    def build(blank: Candidate) -> Candidate:
        assert parent.model is not None
        inputs = run.task.inputs
        model = quantize(parent.model, inputs, calibration_inputs(run.task), plan=_chosen(run, parent.model))
        edits = Plan(tuple(Quantize(name) for name in model.integers))
        trained, losses = restore(run, model, epochs, blank.name) if epochs else (model, ())
        return replace(
            blank,
            plan=parent.plan + edits,
            model=trained,
            float_model=parent.model,
            losses=losses,
            parameters=parent.parameters,
            macs=parent.macs,
        )

    return build


def _chosen(run: Run, model: nn.Module) -> Plan | None:
    """Return the sites that may be rounded; None, which stands for all, saves finding them twice."""
    if not run.request.leave:
        return None
    names = sites(model, run.task.inputs)
    return Plan(tuple(Quantize(name) for name in names if not run.request.leaves_alone(name)))
