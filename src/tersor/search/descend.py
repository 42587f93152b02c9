"""The loop over candidates: integers first, then step by step down, each float network with its integer twin."""

from collections.abc import Callable

from tersor.planning.plan import Plan
from tersor.search.candidate import Candidate
from tersor.search.effort import Effort, plan_effort
from tersor.search.finalists import safety
from tersor.search.integers import in_integers
from tersor.search.outcome import Fate
from tersor.search.run import Run, attempt
from tersor.search.shrink import shrink

#: A float network this many standard errors outside the limit ends the descent: bolder ones only get worse.
_HOPELESS = -2.0

Report = Callable[[Candidate], None]


def descend(run: Run, report: Report) -> None:
    """Make candidates from mild to bold until the time is up or the limit is out of reach.

    Each is handed to `report` as soon as it has a file, so that an interruption loses only the one under way.
    """
    origin = run.base
    if "quantize" in run.request.methods:
        _integer_twin(run, origin, report, Effort((1.0,), None, 0.0))
    if "prune" not in run.request.methods:
        return
    effort = plan_effort(run.task, run.clock)
    parent = origin
    for index, share in enumerate(effort.shares):
        left = len(effort.shares) - index
        if parent.macs <= share * origin.macs:
            continue
        if run.clock.left_s <= 0:
            run.say("candidate", f"the time for candidates is up with {left} steps left")
            return
        made = _float_step(run, parent, share, effort.epochs_for(share, run.clock, left))
        report(made)
        if made.fate is Fate.FAILED:
            return
        if "quantize" in run.request.methods:
            _integer_twin(run, made, report, effort)
        if safety(run, made) < _HOPELESS:
            run.say("candidate", f"{made.name} misses the limit by far; bolder cuts are not tried")
            return
        parent = made


def _float_step(run: Run, parent: Candidate, share: float, epochs: float) -> Candidate:
    removed = f"{1 - share:.0%}"
    trains = bool(len(run.task.train)) and "distill" in run.request.methods
    steps = [] if parent is run.base else [f"start from {parent.name}"]
    steps.append(f"cut units until {removed} of the multiply-adds are gone")
    steps.append(f"distil from the original for {epochs:.3g} passes" if trains else "re-estimate statistics")
    blank = Candidate(
        name=f"prune {removed}",
        plan=Plan(),
        steps=tuple(steps),
        why=f"the next step down from {parent.name}",
    )
    return attempt(run, blank, shrink(run, parent, share, epochs))


def _integer_twin(run: Run, parent: Candidate, report: Report, effort: Effort) -> None:
    """Report the integer twin of `parent`; where rounding alone costs too much, also one trained in integers."""
    stem = "int8" if parent is run.base else f"{parent.name} + int8"
    blank = Candidate(
        name=stem,
        plan=parent.plan,
        steps=(*parent.steps, "round weights and activations to 8-bit integers"),
        why=f"{parent.name} in integers",
    )
    twin = attempt(run, blank, in_integers(run, parent))
    report(twin)
    if twin.quality is None or not _worth_training(run, parent, twin, effort):
        return
    epochs = max(0.5, effort.epochs / 4)
    blank = Candidate(
        name=f"{stem} trained",
        plan=parent.plan,
        steps=(*twin.steps, f"train in integers for {epochs:.3g} passes"),
        why=f"{twin.name} misses the limit and {parent.name} holds it",
    )
    report(attempt(run, blank, in_integers(run, parent, epochs=epochs)))


def _worth_training(run: Run, parent: Candidate, twin: Candidate, effort: Effort) -> bool:
    """Whether rounding lost what training in integers could win back, and there is time for it."""
    if not len(run.task.train) or "distill" not in run.request.methods or run.clock.left_s <= 0:
        return False
    cost = (effort.epoch_s or 0.0) * max(0.5, effort.epochs / 4)
    return run.drop(twin) >= run.margin > run.drop(parent) and cost < run.clock.left_s / 2
