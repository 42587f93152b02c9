"""The loop over candidates: integers first, then step by step down, each float network with its integer twin."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tersor.exporting.artefact import Artefact
from tersor.graph.trace import trace
from tersor.planning.anatomy import Left, anatomy
from tersor.planning.cost_model import features
from tersor.planning.plan import Plan
from tersor.search.candidate import Candidate
from tersor.search.effort import FREE, Effort, plan_effort
from tersor.search.finalists import safety
from tersor.search.integers import schemes_for
from tersor.search.outcome import Fate
from tersor.search.prices import Prices, glance
from tersor.search.propose import READY, Lessons, Proposal, judge_of, lost_by, propose
from tersor.search.rehearse import rehearse
from tersor.search.run import Run, attempt
from tersor.search.rungs import TooBold, climb, refuse_hopeless
from tersor.search.shrink import SHRINKING, shrink, survey
from tersor.search.twins import Report, Twins

#: Shares that differ by less than this factor are not worth another step.
_WORTHWHILE = 1.2
#: A stitched model that is as good as recovered gets this part of the training: time is for bolder steps.
_POLISH = 0.25


def descend(run: Run, report: Report) -> None:
    """Make candidates from mild to bold until the time is up or the limit is out of reach.

    Each is handed to `report` as soon as it has a file, so that an interruption loses only the one under way.
    """
    origin = run.base
    twins = Twins(run, report, schemes_for(run))
    made_first = {scheme: twins.of(origin, scheme, FREE) for scheme in twins.schemes}
    kinds = [kind for kind in SHRINKING if kind in run.request.methods]
    if not kinds:
        return
    lessons = Lessons(Prices(run.request.goal))
    _learn(run, lessons, {"float": origin, **made_first})
    scheme = _best_scheme(run, lessons, made_first)
    lessons.prices = rehearse(run, lessons.prices, _files(origin, made_first, scheme))
    effort = plan_effort(run.task, run.clock)
    ladder = Ladder(effort.shares, parent=origin)
    while (share := ladder.next_share()) is not None:
        if run.clock.left_s <= 0:
            run.say("candidate", "the time for candidates is up")
            return
        made = _step_down(run, ladder, share, lessons, ("float", scheme) if scheme else ("float",), effort)
        report(made)
        if made.fate is Fate.FAILED and share not in lessons.hopeless:
            return
        if made.fate is Fate.FAILED:
            ladder = ladder.after(made, share, -1.0, counted=False)
            continue
        pair = {"float": made}
        if scheme:
            pair[scheme] = twins.of(made, scheme, effort)
        _learn(run, lessons, pair)
        counted = run.clock.budget_s is None
        ladder = ladder.after(made, share, safety(run, made), counted=counted)


def _files(origin: Candidate, twins: dict[str, Candidate], scheme: str | None) -> dict[str, Artefact]:
    """Return the files of the original in the precisions that smaller networks will have."""
    chosen = {"float": origin} | ({scheme: twins[scheme]} if scheme else {})
    return {precision: c.artefact for precision, c in chosen.items() if c.artefact is not None}


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where the descent is: the shares still to be tried, and what held and missed so far.

    After a miss the share halfway (geometrically) between the boldest that held and the mildest that missed is tried,
    from the network that held and with more of the time left.

    Attributes:
        shares: shares of what could go at the goal that are still planned, mild to bold.
        parent: the boldest network that holds; the next step starts from it.
        held: its share.
        missed: the mildest share that missed; 0 before any did.
        refinements: steps that may still be put between the two.
    """

    shares: tuple[float, ...]
    parent: Candidate
    held: float = 1.0
    missed: float = 0.0
    refinements: int = 1

    @property
    def steps_left(self) -> int:
        """Steps among which the time left is shared."""
        return max(1, len(self.shares)) if not self.missed else 2

    def next_share(self) -> float | None:
        """Return the share to try next; None at the end.

        Example:
            >>> from tersor.planning.plan import Plan
            >>> ladder = Ladder((0.5, 0.2), Candidate("original", Plan()))
            >>> ladder.next_share(), ladder.after(ladder.parent, 0.5, -3.0, counted=True).next_share()
            (0.5, 0.707)
        """
        if not self.missed:
            return self.shares[0] if self.shares else None
        if not self.refinements or self.held / self.missed < _WORTHWHILE:
            return None
        return round(math.sqrt(self.held * self.missed), 3)

    def after(self, made: Candidate, share: float, safe: float, *, counted: bool) -> "Ladder":
        """Return the ladder after a step.

        Args:
            made: the network.
            share: its share of what could go.
            safe: how many standard errors it lies inside the limit; negative outside.
            counted: whether refinements are counted, because no budget ends them.
        """
        left = self.refinements - (counted and self.missed > 0)
        if safe > 0:
            asked = self.next_share() or share
            rest = tuple(other for other in self.shares if other < min(share, asked))
            return Ladder(rest, made, share, self.missed, left)
        return Ladder((), self.parent, self.held, share, left)


def _step_down(
    run: Run, ladder: Ladder, share: float, lessons: Lessons, precisions: tuple[str, ...], effort: Effort
) -> Candidate:
    """Return the candidate of the best design for a share, recovered for its part of the time left."""
    parent = ladder.parent
    kinds = [kind for kind in SHRINKING if kind in run.request.methods]
    blank = Candidate(
        name=f"{kinds[0] if len(kinds) == 1 else 'joint'} {1 - share:.0%}",
        plan=Plan(),
        why=f"the next step down from {parent.name}",
    )

    def build(blank: Candidate) -> Candidate:
        known = survey(run, parent)
        if lessons.whole is None:
            lessons.whole = known.space if parent is run.base else survey(run, run.base).space
        proposals = propose(run, known, lessons, precisions, share)
        macs = known.space.anatomy.macs(known.space.left(proposals[0].point.design))
        chosen, epochs = _chosen(
            run, proposals, lambda: effort.epochs_for(macs / run.base.macs, run.clock, ladder.steps_left)
        )
        assert chosen.stitched is not None
        try:
            refuse_hopeless(run, chosen.stitched.model, epochs)
        except TooBold:
            lessons.hopeless.add(share)
            raise
        return shrink(run, parent, chosen.stitched, epochs)(replace(blank, steps=steps(chosen, epochs)))

    def steps(chosen: Proposal, epochs: float) -> tuple[str, ...]:
        trains = bool(len(run.task.train)) and "distill" in run.request.methods
        start = () if parent is run.base else (f"start from {parent.name}",)
        less = f"{chosen.words}, the least harm for {1 - share:.0%} of the {run.request.goal} that could go"
        training = f"distil from the original for {epochs:.3g} passes" if trains else "re-estimate statistics"
        return (*start, less, training)

    return attempt(run, blank, build)


def _chosen(run: Run, proposals: Sequence[Proposal], passes: Callable[[], float]) -> tuple[Proposal, float]:
    """Return the proposal to recover, and for how many passes; one that is as good as recovered is taken at once."""
    first = proposals[0]
    assert first.stitched is not None
    if lost_by(run, first.stitched.model) <= READY * run.margin:
        return first, _POLISH * passes()
    return climb(run, proposals, judge_of(run), passes()), passes()


def _learn(run: Run, lessons: Lessons, made: dict[str, Candidate]) -> None:
    """Time the files of one network in each precision, and refit the prices."""
    able = {scheme: c for scheme, c in made.items() if c.artefact is not None}
    network = made["float"].model
    if not lessons.prices.timed or network is None or run.clock.left_s <= 0:
        return
    layers = anatomy(trace(network, run.task.inputs))
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


def _best_scheme(run: Run, lessons: Lessons, twins: dict[str, Candidate]) -> str | None:
    """Return the scheme for smaller networks: the best at the goal of those that hold the limit, else the closest."""
    able = {
        scheme: twin
        for scheme, twin in twins.items()
        if twin.quality is not None and twin.artefact is not None
    }
    if not able:
        return None
    holding = [scheme for scheme, twin in able.items() if run.drop(twin) < run.margin]
    if not holding:
        return min(able, key=lambda scheme: run.drop(able[scheme]))
    layers = anatomy(trace(run.task.model, run.task.inputs))
    return min(holding, key=lambda scheme: lessons.prices.of(layers, Left(), scheme))
