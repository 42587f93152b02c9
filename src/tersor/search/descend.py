"""The loop over candidates: integers first, then step by step down, each float network with its integer twin."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tersor.planning.plan import Plan
from tersor.search.candidate import Candidate
from tersor.search.effort import Effort, plan_effort
from tersor.search.finalists import safety
from tersor.search.integers import in_integers
from tersor.search.outcome import Fate
from tersor.search.run import Run, attempt
from tersor.search.shrink import shrink

#: Shares that differ by less than this factor are not worth another step.
_WORTHWHILE = 1.2

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
    ladder = Ladder(effort.shares, parent=origin)
    while (share := ladder.next_share()) is not None:
        if run.clock.left_s <= 0:
            run.say("candidate", "the time for candidates is up")
            return
        epochs = effort.epochs_for(share, run.clock, ladder.steps_left)
        made = _float_step(run, ladder.parent, share, epochs)
        report(made)
        if made.fate is Fate.FAILED:
            return
        if "quantize" in run.request.methods:
            _integer_twin(run, made, report, effort)
        counted = run.clock.budget_s is None
        ladder = ladder.after(made, made.macs / origin.macs, safety(run, made), counted=counted)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where the descent is: the shares still to be tried, and what held and missed so far.

    After a miss the share halfway (geometrically) between the boldest that held and the mildest that missed is tried,
    from the network that held and with more of the time left.

    Attributes:
        shares: shares of the original multiply-adds that are still planned, mild to bold.
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
            share: its share of the original multiply-adds; a cut may overshoot what was asked.
            safe: how many standard errors it lies inside the limit; negative outside.
            counted: whether refinements are counted, because no budget ends them.
        """
        left = self.refinements - (counted and self.missed > 0)
        if safe > 0:
            asked = self.next_share() or share
            rest = tuple(other for other in self.shares if other < min(share, asked))
            return Ladder(rest, made, share, self.missed, left)
        return Ladder((), self.parent, self.held, share, left)


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
