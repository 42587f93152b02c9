"""One step sideways: the same network in integers, trained in integers if rounding costs too much."""

from collections.abc import Callable
from dataclasses import replace

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
        names = [name for name in sites(parent.model, inputs) if not run.request.leaves_alone(name)]
        edits = Plan(tuple(Quantize(name) for name in names))
        model = quantize(parent.model, inputs, calibration_inputs(run.task), plan=edits)
        losses: tuple[float, ...] = ()
        if epochs:
            model, losses = restore(run, model, epochs, blank.name)
        return replace(
            blank,
            plan=parent.plan + edits,
            model=model,
            float_model=parent.model,
            losses=losses,
            parameters=parent.parameters,
            macs=parent.macs,
        )

    return build
