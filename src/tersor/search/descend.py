"""The loop over candidates: integers first, then step by step down, each float network with its integer twin."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tersor.exporting.artefact import Artefact
from tersor.graph.trace import trace
from tersor.planning.anatomy import Left, anatomy
from tersor.planning.cost_model import features
from tersor.planning.plan import Factorize, Plan
from tersor.recovery.arithmetic import PLAIN
from tersor.search.candidate import Candidate
from tersor.search.effort import FINE, plan_effort, quickest_for, steps_in
from tersor.search.finalists import safety
from tersor.search.guard import Exceeded, watched
from tersor.search.integers import schemes_for
from tersor.search.ladder import NEAR, Ladder
from tersor.search.origin import best_schemes, first_twins, mend, paying
from tersor.search.outcome import Fate
from tersor.search.prices import Prices, glance
from tersor.search.propose import READY, Exhausted, Lessons, Proposal, glimpse, propose
from tersor.search.rehearse import rehearse
from tersor.search.run import Run, attempt, trains
from tersor.search.rungs import TooBold, climb, refuse_hopeless
from tersor.search.shrink import (
    LONG,
    SHRINKING,
    Survey,
    learns_labels,
    restored,
    shows_mixtures,
    shrink,
    stitch,
)
from tersor.search.twins import Report, Twins

#: A stitched model that is as good as recovered gets this part of the training: time is for bolder steps.
_POLISH = 0.25
#: A stitched model that loses at most this part of the margin is a step that needs no training.
_FREELY = 1.0
#: Part of the time left that goes to training on at the end, and the fewest steps that are worth a training.
_REST, _LEAST_STEPS = 1.1, 100


def descend(run: Run, report: Report) -> None:
    """Make candidates from mild to bold until the time is up or the limit is out of reach.

    Each is handed to `report` as soon as it has a file, so that an interruption loses only the one under way.
    """
    origin = run.base
    twins = Twins(run, report, schemes_for(run))
    lessons = Lessons(Prices(run.request.goal))
    begun_s = time.monotonic()
    made_first = first_twins(run, twins)
    each_s = (time.monotonic() - begun_s) / max(1, len(made_first))
    _learn(run, lessons, {"float": origin, **made_first})
    mend(run, lessons, twins, made_first)
    kinds = [kind for kind in SHRINKING if kind in run.request.methods]
    if not kinds or _out_of_time(run):
        return
    near = best_schemes(run, lessons, made_first)
    scheme = near[0] if near else None
    lessons.prices = rehearse(run, lessons.prices, _files(origin, made_first, scheme))
    run = _hastened(run)
    lessons.effort = replace(plan_effort(run.task, run.clock, run.arithmetic), twins_s=each_s * len(near))
    precisions = ("float", scheme) if scheme and run.drop(made_first[scheme]) < run.margin else ("float",)
    ladder = Ladder(
        lessons.effort.shares,
        parent=origin,
        open_end=run.clock.budget_s is not None,
        frugal=lessons.effort.short,
    )
    ladder = _without_free_steps(run, ladder, lessons, precisions)
    while (share := ladder.next_share()) is not None:
        if _out_of_time(run):
            return
        made = _step_down(run, ladder, share, lessons, precisions)
        report(made)
        if made.fate is Fate.FAILED and share not in lessons.hopeless:
            break
        if made.fate is Fate.FAILED:
            ladder = ladder.after(made, -1.0, counted=False)
            continue
        begun_s = time.monotonic()
        rounded = twins.of(made, paying(run, lessons, made, near), lessons.effort)
        if rounded:
            lessons.effort = replace(lessons.effort, twins_s=time.monotonic() - begun_s)
        _learn(run, lessons, {"float": made, **rounded})
        counted = run.clock.budget_s is None
        ladder = ladder.after(made, safety(run, made), counted=counted)
    _go_on(run, ladder, lessons, twins, near)


def _without_free_steps(run: Run, ladder: Ladder, lessons: Lessons, precisions: tuple[str, ...]) -> Ladder:
    """Return the ladder without its mildest steps where time is short and even untrained networks hold the limit."""
    if not trains(run) or run.clock.budget_s is None or lessons.effort.shares == FINE:
        return ladder
    while len(ladder.shares) > 1:
        share, *bolder = ladder.shares
        try:
            with watched(max(0.0, run.clock.left_s / 2), run.request.max_memory, run.executor.processes):
                known = lessons.survey(run, run.base)
                lost = glimpse(run, known, lessons, precisions, share)
        except (Exceeded, Exception):  # whatever it is, the step itself says it
            return ladder
        if lost > _FREELY * run.margin:
            return ladder
        run.say("candidate", f"{1 - share:.0%} less holds before any training: a bolder step comes first")
        ladder = replace(ladder, shares=tuple(bolder), held=share)
    return ladder


def _out_of_time(run: Run) -> bool:
    if run.clock.left_s > 0:
        return False
    run.say("candidate", "the time for candidates is up")
    return True


def _hastened(run: Run) -> Run:
    """Return the run with the arithmetic in which its trainings are quickest here."""
    if not trains(run):
        return run
    arithmetic = quickest_for(run.task, run.clock)
    if arithmetic != PLAIN:
        run.say("training", f"in {arithmetic}: the quickest here")
    return replace(run, arithmetic=arithmetic)


def _go_on(run: Run, ladder: Ladder, lessons: Lessons, twins: Twins, schemes: Sequence[str]) -> None:
    """Give the time that is left to the network that needs it most."""
    last = _last(ladder)
    if not trains(run) or run.clock.budget_s is None or last is run.base:
        return
    epochs = lessons.effort.epochs_for(last.macs / run.base.macs, run.clock, _REST)
    if steps_in(run.task, epochs) < _LEAST_STEPS:
        return

    def build(blank: Candidate) -> Candidate:
        assert last.model is not None
        model, losses = restored(run, [last.model], epochs, blank.name)[0]()
        return replace(blank, model=model, losses=losses, parameters=last.parameters, macs=last.macs)

    blank = Candidate(
        name=f"{last.name} longer",
        plan=last.plan,
        steps=(*last.steps, f"distil for {epochs:.3g} passes more"),
        why=f"there was time left, and {last.name} could come closer to the original",
    )
    made = attempt(run, blank, build)
    twins.report(made)
    if made.model is not None and run.clock.left_s > 0:
        twins.of(made, paying(run, lessons, made, schemes), lessons.effort)


def _last(ladder: Ladder) -> Candidate:
    """Return the mildest network that missed if the boldest that holds is safe, else that one."""
    if ladder.safe > NEAR and ladder.missing is not None and ladder.missing.quality is not None:
        return ladder.missing
    return ladder.parent


def _files(origin: Candidate, twins: dict[str, Candidate], scheme: str | None) -> dict[str, Artefact]:
    """Return the files of the original in the precisions that smaller networks will have."""
    chosen = {"float": origin} | ({scheme: twins[scheme]} if scheme else {})
    return {precision: c.artefact for precision, c in chosen.items() if c.artefact is not None}


def _step_down(
    run: Run, ladder: Ladder, share: float, lessons: Lessons, precisions: tuple[str, ...]
) -> Candidate:
    """Return the candidate of the best design for a share, recovered for its part of the time left."""
    parent = ladder.parent
    kinds = [kind for kind in SHRINKING if kind in run.request.methods]
    blank = Candidate(
        name=f"{kinds[0] if len(kinds) == 1 else 'joint'} {100 * (1 - share):.3g}%",
        plan=Plan(),
        why=f"the next step down from {parent.name}",
    )

    def build(blank: Candidate) -> Candidate:
        if lessons.whole is None:
            lessons.survey(run, run.base)
        start, known, proposals = _proposed(run, parent, lessons, precisions, share)
        macs = known.space.anatomy.macs(known.space.left(proposals[0].point.design))
        least = _LEAST_STEPS / steps_in(run.task, 1.0) if trains(run) else 0.0
        chosen, epochs = _chosen(
            run,
            proposals,
            lessons,
            lambda: lessons.effort.epochs_for(macs / run.base.macs, run.clock, ladder.part, least),
        )
        assert chosen.stitched is not None
        try:
            refuse_hopeless(run, lessons, chosen.stitched.model, epochs)
        except TooBold:
            lessons.hopeless.add(share)
            raise
        stitched = chosen.stitched
        if epochs >= LONG:
            stitched = stitch(run, known, stitched.plan, refit=False)
        begun_s = time.monotonic()
        made = shrink(run, start, stitched, epochs)(replace(blank, steps=steps(start, chosen, epochs)))
        seconds = time.monotonic() - begun_s
        lessons.effort = lessons.effort.observed(macs / run.base.macs, epochs, seconds)
        return made

    def steps(start: Candidate, chosen: Proposal, epochs: float) -> tuple[str, ...]:
        begin = () if start is run.base else (f"start from {start.name}",)
        less = f"{chosen.words}, the least harm for {100 * (1 - share):.3g}% of the {run.request.goal} that could go"
        teachers = "the original and labels" if learns_labels(run.task, epochs) else "the original"
        shown = " over mixtures of samples" if shows_mixtures(run.task, epochs) else ""
        distil = f"distil from {teachers} for {epochs:.3g} passes{shown}"
        return (*begin, less, distil if trains(run) else "re-estimate statistics")

    return attempt(run, blank, build)


def _proposed(
    run: Run, parent: Candidate, lessons: Lessons, precisions: tuple[str, ...], share: float
) -> tuple[Candidate, Survey, tuple[Proposal, ...]]:
    """Return where a step starts, what can be done to that, and designs: the parent, or else the original.

    The layers that the parent has factorized stay two, however little is left of them; the original still has them
    whole.
    """
    known = lessons.survey(run, parent)
    try:
        return parent, known, propose(run, known, lessons, precisions, share)
    except Exhausted:
        if not parent.plan.of(Factorize):
            raise
    run.say("candidate", f"what is left of {parent.name} cannot be made much better: the next starts anew")
    known = lessons.survey(run, run.base)
    return run.base, known, propose(run, known, lessons, precisions, share)


def _chosen(
    run: Run, proposals: Sequence[Proposal], lessons: Lessons, passes: Callable[[], float]
) -> tuple[Proposal, float]:
    """Return the proposal to recover, and for how many passes; one that is as good as recovered is taken at once."""
    first = proposals[0]
    assert first.stitched is not None
    if lessons.lost_by(run, first.stitched.model) <= READY * run.margin:
        return first, _POLISH * passes()
    return climb(run, proposals, lessons, passes()), passes()


def _learn(run: Run, lessons: Lessons, made: dict[str, Candidate]) -> None:
    """Learn from the files of one network in each precision: their times, or what they hold beside parameters."""
    able = {scheme: c for scheme, c in made.items() if c.artefact is not None}
    network = made["float"].model
    if network is None or run.clock.left_s <= 0:
        return
    layers = anatomy(trace(network, run.task.inputs))
    if run.request.goal == "size":
        beside = {
            scheme: candidate.artefact.size_bytes - layers.bytes(Left(), scheme)
            for scheme, candidate in able.items()
            if candidate.artefact is not None
        }
        lessons.prices = replace(lessons.prices, beside={**beside, **lessons.prices.beside})
    if not lessons.prices.timed:
        return
    files = {
        index: (candidate.artefact, features(layers, Left(), scheme))
        for index, (scheme, candidate) in enumerate(able.items())
        if candidate.artefact is not None
    }
    before = lessons.prices.model
    lessons.prices = glance(run, lessons.prices, files)
    model = lessons.prices.model
    if model is not None and model is not before:
        told = "" if model.error is None else f", {model.error:.1%} off on models held out"
        run.say("measure", f"latency model: {model.measured} files measured{told}")
