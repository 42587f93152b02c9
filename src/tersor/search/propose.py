"""Which designs to try for a step down: the joint one and those of single methods, compared on the stitched model."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import islice
from math import inf, log, sqrt
from weakref import WeakKeyDictionary

from torch import nn

from tersor.errors import PlanError, TersorError
from tersor.loading.evaluate import evaluate
from tersor.loading.task import Batch
from tersor.planning.anatomy import Left
from tersor.planning.plan import Cut, Drop, Factorize, Plan
from tersor.planning.space import (
    CUT,
    Budget,
    Design,
    Point,
    Space,
    Unit,
    cheapest,
    gap,
    settle,
    walk,
    weights_by,
)
from tersor.recovery.norms import reestimate_norms
from tersor.search.candidate import Candidate
from tersor.search.effort import FREE, Effort
from tersor.search.harm import SAMPLES
from tersor.search.outer import Multipliers, knobs_of, search_multipliers
from tersor.search.prices import Prices
from tersor.search.racing import Racing, racing_of
from tersor.search.run import Run
from tersor.search.shrink import Stitched, Survey, stitch, survey

#: Name of the design that does not look at harms.
EVEN = "evenly"
#: Samples whose gradients score units where time is short.
_FEWER = 128
#: Samples from which a stitched model takes its statistics.
_SAMPLES = 256
#: Search samples on which the quality of a stitched model is looked at.
_GLANCE = 1000
#: A stitched model that loses at most this part of the margin is as good as recovered.
READY = 0.25
#: A step comes down to this part of the price of the network that it starts from, or further.
_STEP = 0.93
#: A price may miss the target by this factor; levels are steps.
_TOLERANCE = 1.02
#: Share of the time left that one outer search may take, and the distance told of a design that is too dear.
_OUTER_SHARE, _FAR = 0.04, 1e6


class Exhausted(PlanError):
    """No further step of worth is left of a network that was made smaller before."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A design, and how far the model stitched from it is from the original.

    Attributes:
        kinds: the methods it may use.
        precision: the precision it was priced in.
        point: the design with its predicted price and harm.
        stitched: the model; None if it could not be made.
        divergence: distance of its outputs from the original's; infinite if it could not be made.
        gap: share of its harm that a better choice at the same price could spare at most, as seen from this design.
    """

    kinds: tuple[str, ...]
    precision: str
    point: Point
    stitched: Stitched | None = None
    divergence: float = float("inf")
    gap: float = 0.0

    @property
    def words(self) -> str:
        """What it does, in words."""
        assert self.stitched is not None
        return describe(self.stitched.plan)


@dataclass
class Lessons:
    """What a search has learned about designs, kept from step to step.

    Attributes:
        prices: what designs cost at the goal.
        whole: the designs of the original; None before it was surveyed.
        weights: for each kind of unit, how much more harm stitched models showed than was predicted.
        hopeless: shares whose designs were too far off to be trained.
        effort: the schedule, with the time that training has taken so far.
        finalists: stitched models that get a short training.
        racing: the samples on which they are compared, with the original's answers; None before the first race.
        surveyed: the network that was surveyed last, and what can be done to it; None before the first one.
        lost: what networks lose before their files are made, so that none is looked at twice.
    """

    prices: Prices
    whole: Space | None = None
    weights: dict[str, float] = field(default_factory=dict)
    hopeless: set[float] = field(default_factory=set)
    effort: Effort = FREE
    finalists: int = 3
    racing: Racing | None = None
    surveyed: tuple[str, Survey] | None = None
    lost: WeakKeyDictionary[nn.Module, float] = field(default_factory=WeakKeyDictionary)

    def lost_by(self, run: Run, model: nn.Module) -> float:
        """Return what a model loses against the original on the first search samples."""
        if model not in self.lost:
            self.lost[model] = lost_by(run, model)
        return self.lost[model]

    def survey(self, run: Run, parent: Candidate) -> Survey:
        """Return what can be done to a network, looked at once while steps start from it."""
        if self.surveyed is None or self.surveyed[0] != parent.name:
            samples = _FEWER if self.effort.short else SAMPLES
            self.surveyed = parent.name, survey(run, parent, samples)
            if parent is run.base:
                self.whole = self.surveyed[1].space
        return self.surveyed[1]

    def race(self, run: Run) -> Racing:
        """Return a race with nobody ahead yet; the original answers its samples once in a search."""
        self.racing = self.racing or racing_of(run)
        return self.racing.anew()

    def target(self, precisions: Sequence[str], share: float) -> float:
        """Return the price that keeps `share` of what could go: from the original at its best down to the cheapest."""
        assert self.whole is not None
        prices = [self.prices.on(self.whole, precision) for precision in precisions]
        floor = min(cheapest(self.whole, price).cost for price in prices)
        return floor + share * (min(price(self.whole.origin) for price in prices) - floor)


def propose(
    run: Run, known: Survey, lessons: Lessons, precisions: Sequence[str], share: float
) -> tuple[Proposal, ...]:
    """Return stitched designs for a step to `share` of what could go at the goal, the closest to the original first.

    The joint design and the best one of each single method are stitched, all for the same target: a joint design that
    is no better than a single method does not win. What they show corrects the predicted harms of each kind. Where the
    budget leaves time, an outer search over multipliers of the harms adds its best.

    Raises:
        Exhausted: if no further step of worth is left of a network that was made smaller before.
        TersorError: if no proposal can be built.
    """
    kinds = tuple(dict.fromkeys(unit.kind for unit in known.space.units))
    precision, target = _aim(known.space, lessons, precisions, share)
    desk = _Desk(run, known, lessons, precision, target, lessons.race(run))
    made = [desk.tried(desk.design((kind,))) for kind in kinds] if len(kinds) > 1 else []
    lessons.weights = lessons.weights | calibrated(made)
    made.append(desk.tried(desk.design(kinds)))
    stitched = made[-1].stitched
    if CUT in kinds and not lessons.effort.short:  # it pays after a long training
        made.append(desk.tried(desk.even()))
    far = stitched is None or lessons.lost_by(run, stitched.model) > READY * run.margin
    if far and not lessons.effort.short:
        made += desk.searched(kinds)
    able = {p.point.design: p for p in made if p.stitched is not None}
    if not able:
        raise PlanError(f"No design for {share:.0%} of the {run.request.goal} could be built.")
    reaching = [p for p in able.values() if p.point.cost <= target * _TOLERANCE]
    ranked = sorted(reaching or [min(able.values(), key=lambda p: p.point.cost)], key=lambda p: p.divergence)
    for proposal in able.values():
        run.say("candidate", _verdict(proposal, ranked))
    run.say("candidate", desk.racing.told())
    return tuple(ranked)


def glimpse(run: Run, known: Survey, lessons: Lessons, precisions: Sequence[str], share: float) -> float:
    """Return what the design of least predicted harm for a share loses before any training; infinite if none is made.

    A quick look: nothing is compared, and nothing learned but this.
    """
    precision, target = _aim(known.space, lessons, precisions, share)
    desk = _Desk(run, known, lessons, precision, target, lessons.race(run))
    plan = known.plan(desk.design(tuple(unit.kind for unit in known.space.units)).point.design)
    if not plan.edits:
        return inf
    model = stitch(run, known, plan).model
    reestimate_norms(model, samples_of(run))
    return lost_by(run, model)


def _aim(space: Space, lessons: Lessons, precisions: Sequence[str], share: float) -> tuple[str, float]:
    """Return the precision that reaches the price of `share` with the least harm, and the price to come down to.

    Where what is left of the network is cheaper already, the price is that much less that the step is worth its while;
    where only the error of the prices may hide that there is so much to gain, it is halfway to the cheapest.

    Raises:
        Exhausted: if no further step of worth is left.
    """
    wanted, first = lessons.target(precisions, share), space is lessons.whole
    weighed = space.weighed(weights_by(lessons.weights))

    def aim(precision: str) -> tuple[bool, float, float]:
        price = lessons.prices.on(space, precision)
        target = wanted if first else min(wanted, _STEP * price(space.origin))
        point = walk(weighed, price, target)
        if not first and 1.0 < point.cost / target / _TOLERANCE <= 1.0 + lessons.prices.error:
            target = sqrt(price(space.origin) * point.cost)
            point = walk(weighed, price, target)
        misses = point.cost > target * _TOLERANCE
        return misses, point.cost if misses else point.harm, target

    found = {precision: aim(precision) for precision in precisions}
    best = min(found, key=lambda precision: found[precision][:2])
    misses, _, target = found[best]
    if misses and not first:
        raise Exhausted(f"what is left cannot be made {1 - _STEP:.0%} better at the goal")
    return best, target


@dataclass(frozen=True)
class _Desk:
    """Where the designs of one step are made and stitched."""

    run: Run
    known: Survey
    lessons: Lessons
    precision: str
    target: float
    racing: Racing

    def design(self, kinds: tuple[str, ...], weight: Callable[[Unit], float] = lambda _: 1.0) -> Proposal:
        """Return the design of least predicted harm for the share, by some kinds of units only."""
        by_kind = weights_by(self.lessons.weights)
        weighed = self.known.space.weighed(lambda unit: by_kind(unit) * weight(unit))
        space = replace(weighed, units=tuple(_limited(unit, unit.kind in kinds) for unit in weighed.units))
        budgets = self.budgets(space)
        point, price = settle(space, budgets), budgets[0].price
        point = replace(point, design=space.effective(point.design))
        return Proposal(kinds, self.precision, point, gap=gap(space, price, point))

    def even(self) -> Proposal:
        r"""Return the design that cuts as evenly as the prices allow: least $-\sum \log k$ of the shares kept.

        Harms are those of a network that is not trained any more; over a long training width counts more than which
        units went, and a layer that was left far too narrow is what does not come back.
        """
        space = replace(self.known.space, units=tuple(_even(unit) for unit in self.known.space.units))
        point = settle(space, self.budgets(space))
        design = space.effective(point.design)
        return Proposal(
            (EVEN,), self.precision, replace(point, design=design, harm=self.known.space.harm(design))
        )

    def budgets(self, space: Space) -> list[Budget]:
        """Return the share at the goal as a budget, and the limits that were asked for and can be predicted."""
        prices, limits = self.lessons.prices, self.run.request.limits
        found = [Budget(prices.on(space, self.precision), self.target)]
        if limits.latency < inf and prices.timed and prices.model is not None:
            found[0] = replace(found[0], most=min(found[0].most, limits.latency / prices.model.margin))
        if limits.size < inf:
            assert self.lessons.whole is not None
            assert self.run.base.artefact is not None
            bare = self.lessons.whole.anatomy.bytes(Left(), "float")
            beside = self.run.base.artefact.size_bytes - bare
            found.append(Budget(Prices("size").on(space, self.precision), limits.size - beside))
        return found

    def tried(self, proposal: Proposal) -> Proposal:
        """Return the proposal with its stitched model and how far that is from the original."""
        plan = self.known.plan(proposal.point.design)
        if not plan.edits:
            return proposal
        try:
            made = stitch(self.run, self.known, plan)
        except TersorError as error:
            self.run.say("candidate", f"{' and '.join(proposal.kinds)}: {str(error).partition(chr(10))[0]}")
            return proposal
        reestimate_norms(made.model, samples_of(self.run))
        reaches = proposal.point.cost <= self.target * _TOLERANCE
        return replace(proposal, stitched=made, divergence=self.racing(made.model, counts=reaches))

    def searched(self, kinds: tuple[str, ...]) -> list[Proposal]:
        """Return the best proposal of the outer search; none without a budget that leaves time for it, or Optuna."""
        left_s = self.run.clock.left_s
        knobs = knobs_of(self.known.space.units)
        if self.run.clock.budget_s is None or len(knobs) < 2 or find_spec("optuna") is None:
            return []
        end = time.monotonic() + _OUTER_SHARE * left_s
        best: dict[Design, Proposal] = {}

        def value(multipliers: Multipliers) -> float:
            proposal = self.design(kinds, multipliers)
            design = proposal.point.design
            if design not in best:
                best[design] = self.tried(proposal)
            reached = proposal.point.cost <= self.target * _TOLERANCE
            return best[design].divergence if reached else _FAR

        trials = search_multipliers(
            knobs, value, seconds_left=lambda: end - time.monotonic(), seed=self.run.request.seed
        )
        if len(trials) > 1:
            gained = trials[0].value / max(min(t.value for t in trials), 1e-12)
            self.run.say(
                "candidate", f"outer search: {len(trials)} sets of multipliers, {gained:.2f} times closer"
            )
        return sorted(best.values(), key=lambda p: p.divergence)[:1]


def _even(unit: Unit) -> Unit:
    if unit.kind != CUT:
        return _limited(unit, False)
    return replace(unit, harms=tuple(-log(level / unit.levels[0]) for level in unit.levels))


def _limited(unit: Unit, allowed: bool) -> Unit:
    return unit if allowed else replace(unit, levels=unit.levels[:1], harms=unit.harms[:1])


def lost_by(run: Run, model: nn.Module) -> float:
    """Return what a model loses against the original on the first search samples; positive is worse."""
    value = evaluate(run.task.metric, model, run.task.search, limit=_GLANCE)
    assert run.base.quality is not None
    lost = run.base.quality.value - value
    return lost if run.task.metric.higher_is_better else -lost


def samples_of(run: Run) -> list[Batch]:
    """Return the calibration samples from which statistics are taken."""
    return list(islice(run.task.calibration.batches(64), _SAMPLES // 64))


def calibrated(singles: Sequence[Proposal]) -> dict[str, float]:
    """Return for each kind the ratio of the divergence seen to the harm predicted, with the harms at hand.

    Example:
        >>> seen = [Proposal(("prune",), "float", Point((1,), 1.0, 0.5), Stitched(Plan(), nn.Identity()), 2.0)]
        >>> calibrated(seen)
        {'prune': 4.0}
    """
    return {
        p.kinds[0]: max(p.divergence, 1e-9) / p.point.harm
        for p in singles
        if p.stitched is not None and p.point.harm > 0
    }


def _verdict(proposal: Proposal, ranked: Sequence[Proposal]) -> str:
    fate = "does not reach the target"
    if proposal in ranked:
        fate = "the closest" if proposal is ranked[0] else "further from the original"
    words = f"distance {proposal.divergence:.4g}, {fate}; optimality gap {proposal.gap:.1%}"
    return f"{'+'.join(proposal.kinds)}: {proposal.words}; {words}"


def describe(plan: Plan) -> str:
    """Return what a plan does, counted.

    Example:
        >>> describe(Plan((Cut("a", (0, 1)), Cut("b", (0,)), Drop("c"))))
        'cut 2 groups, drop 1 block'
    """
    counts: Mapping[str, int] = {
        "cut {} group": len(plan.of(Cut)),
        "factorize {} layer": len(plan.of(Factorize)),
        "drop {} block": len(plan.of(Drop)),
    }
    parts = [words.format(n) + ("s" if n > 1 else "") for words, n in counts.items() if n]
    return ", ".join(parts) or "nothing"
