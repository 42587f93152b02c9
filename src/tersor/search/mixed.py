"""One step sideways where rounding everything costs too much: the sites that it hurts most stay in floating point."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tersor.errors import PlanError
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.build import build as build_integers
from tersor.quantization.recipe import Recipe
from tersor.quantization.sensitivity import Cost, sensitivity
from tersor.search.candidate import Candidate
from tersor.search.integers import BITS, WORDS, allowed_sites, twin_of
from tersor.search.propose import lost_by
from tersor.search.run import Build, Run, calibration_inputs, codes_for

#: Schemes that round activations too: that is where single sites hurt.
MIXABLE = ("static", "dynamic")
#: Part of the margin that a simulation may lose on the first search samples to be worth a file.
_ENOUGH = 0.75
#: Sites that are named in the steps of a candidate.
_NAMED = 4


def in_part(run: Run, parent: Candidate, scheme: str) -> Build:
    r"""Return how to build the integer twin of `parent` that keeps as few sites in floating point as the limit needs.

    Sites are ordered by the energy that rounding each alone adds to the outputs, $\lVert f_s(x) - f(x) \rVert^2$; the
    dearest 1, 2, 4, ... stay in floating point, up to half of them, until the simulation holds the limit on search
    data.

    Args:
        run: the search.
        parent: a candidate in floating point, which holds the limit.
        scheme: kind of integers.

    Source: ordering as in Dong et al., HAWQ-V2, NeurIPS 2020, with the noise measured instead of estimated.
    """

    def build(blank: Candidate) -> Candidate:
        assert parent.model is not None
        samples, codes = calibration_inputs(run.task), codes_for(run, scheme)
        graph = run.captures.of(parent.model, run.task.inputs)
        plan = allowed_sites(run, graph, scheme)
        whole = build_integers(graph, samples, codes, plan, Recipe())
        costs = sensitivity(whole, samples)
        for count in _counts(len(costs)):
            rounded = Plan(tuple(Quantize(cost.site, *BITS[scheme]) for cost in costs[count:]))
            model = build_integers(graph, samples, codes, rounded, Recipe())
            if lost_by(run, model) <= _ENOUGH * run.margin:
                steps = (*parent.steps, WORDS[scheme], _words(costs[:count]))
                return replace(twin_of(blank, parent, model, scheme), steps=steps)
        raise PlanError("rounding costs too much even where half of the sites stay in floating point")

    return build


def _counts(sites: int) -> Iterator[int]:
    count = 1
    while 2 * count <= sites:
        yield count
        count *= 2


def _words(costs: Sequence[Cost]) -> str:
    """Say which sites stay, and what rounding them alone would leave.

    Example:
        >>> _words([Cost("stem", 0.1), Cost("head", 0.01)])
        'keep 2 sites in floating point, which rounding hurts most: stem (10 dB), head (20 dB)'
    """
    named = ", ".join(f"{cost.site} ({cost.sqnr_db:.0f} dB)" for cost in costs[:_NAMED])
    more = f" and {len(costs) - _NAMED} more" if len(costs) > _NAMED else ""
    sites = "1 site" if len(costs) == 1 else f"{len(costs)} sites"
    return f"keep {sites} in floating point, which rounding hurts most: {named}{more}"
