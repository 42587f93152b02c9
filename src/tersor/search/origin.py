"""The integers of the original: which are made, which are trained, and which of them smaller networks get."""

import time
from collections.abc import Sequence
from dataclasses import replace

from tersor.graph.trace import trace
from tersor.planning.anatomy import Left, anatomy
from tersor.search.candidate import Candidate
from tersor.search.effort import FREE, plan_effort
from tersor.search.finalists import safety
from tersor.search.integers import BITS
from tersor.search.prices import BYTES
from tersor.search.propose import Lessons
from tersor.search.run import Run, trains
from tersor.search.twins import Twins

#: Twins of weights alone are made where each takes at most this part of the time left.
_QUICK = 0.03
#: A twin whose predicted price is over this many times that of its network is not made.
_MAYBE = 1.03
#: Nor is one of a network that lies so many standard errors outside the limit.
_MISSED = -1.0
#: Schemes whose prices are this near to the best are tried too, where there are so many seconds: a glance may err.
_NEAR, _ROOMY_S = 1.1, 300.0


def first_twins(run: Run, twins: Twins) -> dict[str, Candidate]:
    """Return the twins of the original; those of weights alone, seldom the fastest, only where they are quick."""
    both = [scheme for scheme in twins.schemes if BITS[scheme][1]]
    alone = [scheme for scheme in twins.schemes if scheme not in both]
    begun_s = time.monotonic()
    made = twins.rounded(run.base, both)
    each_s, left_s = (time.monotonic() - begun_s) / max(1, len(both)), run.clock.left_s
    speed = run.request.goal not in BYTES and not run.request.limits
    if both and alone and speed and each_s > _QUICK * left_s and not run.task.drawn:
        run.say(
            "candidate",
            f"weights alone are not rounded: each would take {each_s:.0f} of the {left_s:.0f} s left",
        )
        return made
    return made | twins.rounded(run.base, alone)


def best_schemes(run: Run, lessons: Lessons, twins: dict[str, Candidate]) -> tuple[str, ...]:
    """Return the schemes for smaller networks: the best at the goal of those that hold the limit, else the closest.

    Those that are as good as the best come after it. None where floating point is better: what integers cost besides,
    layer by layer, does not shrink with the layers.
    """
    able = {
        scheme: twin
        for scheme, twin in twins.items()
        if twin.quality is not None and twin.artefact is not None
    }
    if not able:
        return ()
    holding = [scheme for scheme, twin in able.items() if run.drop(twin) < run.margin]
    if not holding:
        return (min(able, key=lambda scheme: run.drop(able[scheme])),)
    layers = anatomy(trace(run.task.model, run.task.inputs))
    prices = {scheme: lessons.prices.of(layers, Left(), scheme) for scheme in ("float", *holding)}
    best, *others = sorted(prices, key=lambda scheme: prices[scheme])
    if best == "float":
        run.say(
            "candidate", f"integers gain nothing at {run.request.goal} here, and less in smaller networks"
        )
        return ()
    near = [s for s in others if s != "float" and prices[s] <= _NEAR * prices[best]]
    return (best, *(near if run.clock.left_s > _ROOMY_S else ()))


def mend(run: Run, lessons: Lessons, twins: Twins, made: dict[str, Candidate]) -> None:
    """Mend the twins of the original that miss the limit, where they would be better at the goal."""
    missing = [scheme for scheme, c in made.items() if c.quality is not None and run.drop(c) >= run.margin]
    # A limit of its own, on bytes or time, may need what the goal does not.
    worth = missing if run.request.limits else paying(run, lessons, run.base, missing)
    for scheme in missing:
        if scheme not in worth:
            run.say("candidate", f"{made[scheme].name}: no better than floating point, so it is not trained")
    if worth:
        effort = replace(FREE, epoch_s=plan_effort(run.task, run.clock).epoch_s if trains(run) else None)
        twins.mend(run.base, {scheme: made[scheme] for scheme in worth}, effort)


def paying(run: Run, lessons: Lessons, network: Candidate, schemes: Sequence[str]) -> tuple[str, ...]:
    """Return the schemes that may be better than floating point for a network that does not clearly miss the limit."""
    assert network.model is not None
    if not schemes or safety(run, network) < _MISSED:
        return ()
    layers = anatomy(trace(network.model, run.task.inputs))
    most = _MAYBE * lessons.prices.of(layers, Left(), "float")
    return tuple(scheme for scheme in schemes if lessons.prices.of(layers, Left(), scheme) < most)
