"""Which candidates go before the sealed data, in which order, and which of those that pass is the answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tersor.certification.certify import MOST_FINALISTS
from tersor.planning.plan import Quantize
from tersor.search.candidate import Candidate
from tersor.search.outcome import Fate
from tersor.search.run import Run
from tersor.search.sequence import best_sequence, outlook

#: Disagreements that are assumed on top of those seen, so that a small split never looks certain.
_PRIOR_DISAGREEMENTS = 1.0

#: A difference of this many standard errors on the search data outweighs what was taken away; beyond `_SURE` of them
#: from the limit there is nothing left to tell apart.
_CLEARLY, _SURE = 1.0, 3.0

#: Share of a network that rounding to integers counts as, when its sealed test is foreseen: no weight is gone.
_ROUNDING = 0.1


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times better than the base a candidate is at the goal, with an interval."""

    value: float
    low: float
    high: float

    @property
    def open(self) -> bool:
        """Whether there is no interval, because too few turns went undisturbed."""
        return self.high == math.inf

    def above(self, other: "Gain") -> bool:
        """Whether this gain is higher by more than their intervals explain, taken as those of independent errors.

        Example:
            >>> Gain(2.3, 2.2, 2.7).above(Gain(1.9, 1.7, 2.25)), Gain(2.3, 2.2, 2.7).above(Gain(2.2, 1.9, 2.5))
            (True, False)
        """
        if self.open or other.open or self.value <= other.value:
            return False
        errors = math.log(self.value / self.low), math.log(other.high / other.value)
        return math.log(self.value / other.value) > math.hypot(*errors)

    def words(self) -> str:
        """Return the gain in words.

        Example:
            >>> Gain(1.5, 1.4, 1.6).words(), Gain(1.5, 0.0, math.inf).words()
            ('1.50x (1.40 to 1.60)', '1.50x (too few undisturbed turns for an interval)')
        """
        interval = f"{self.low:.2f} to {self.high:.2f}"
        return f"{self.value:.2f}x ({'too few undisturbed turns for an interval' if self.open else interval})"


def gain(run: Run, candidate: Candidate) -> Gain | None:
    """Return the gain of `candidate` at the goal of the run; None where it was not measured."""
    if run.request.goal == "size":
        return _size_gain(run, candidate)
    if candidate.speed is None:
        return None
    if run.request.goal == "memory":
        ratio = candidate.speed.base.peak_bytes / max(1, candidate.speed.candidate.peak_bytes)
        return Gain(ratio, ratio, ratio)
    return Gain(candidate.speed.ratio, candidate.speed.low, candidate.speed.high)


def _size_gain(run: Run, candidate: Candidate) -> Gain | None:
    if candidate.artefact is None or run.base.artefact is None:
        return None
    ratio = run.base.artefact.size_bytes / candidate.artefact.size_bytes
    return Gain(ratio, ratio, ratio)


def safety(run: Run, candidate: Candidate) -> float:
    r"""Return how many standard errors the drop on the search split lies inside the margin.

    $$z = (\delta - \bar d) / \sqrt{(\overline{d^2} + 1/n) / n}$$

    where d is the paired difference of scores; a metric without scores gives the share of the margin that is left.
    """
    room = run.margin - run.drop(candidate)
    base, quality = run.base.quality, candidate.quality
    if base is None or quality is None or base.scores is None or quality.scores is None:
        return room / run.margin
    difference = (base.scores - quality.scores).double()
    count = len(difference)
    spread = float(torch.mean(difference**2)) + _PRIOR_DISAGREEMENTS / count
    return room / math.sqrt(spread / count)


def judge(run: Run, candidate: Candidate) -> Candidate:
    """Return `candidate` with its fate so far: missed, not better, or still in the running."""
    if candidate.quality is None:
        return candidate
    drop = run.drop(candidate)
    if drop >= run.margin:
        return replace(
            candidate,
            fate=Fate.MISSED,
            reason=f"drop {drop:.4f} on the search data, where {run.margin:.4f} is allowed",
        )
    short = shortcoming(run, candidate)
    return candidate if short is None else replace(candidate, fate=short[0], reason=short[1])


def shortcoming(run: Run, candidate: Candidate, *, final: bool = False) -> tuple[Fate, str] | None:
    """Return why the measurement of `candidate` rules it out, as a fate with its reason; None if it does not.

    It has to meet every limit that was asked for. Where the original meets them too, it also has to be better; while
    candidates are chosen, one whose gain has no interval may be, and in the `final` measurement it has to have one.
    """
    found, limits, speed = gain(run, candidate), run.request.limits, candidate.speed
    if found is None:
        return Fate.FAILED, "could not be measured"
    if limits and speed is not None and candidate.artefact is not None:
        over = limits.exceeded(candidate.artefact, speed.candidate)
        if over:
            return Fate.OVER_LIMIT, over
        if limits.exceeded(run.rival, speed.base):
            return None
    if found.low > 1.0 or (found.open and found.value > 1.0 and not final):
        return None
    return Fate.NOT_BETTER, f"{found.words()} at {run.request.goal}: not shown to be better than the base"


def work(candidate: Candidate) -> float:
    """Return a fixed, noise-free measure of cost: multiply-adds, halved where they are done in integers.

    Two runs with one seed must choose the same plan, and measured times differ from run to run; so times decide only
    where they are clearly apart, and this decides elsewhere.
    """
    integers = any(edit.activation_bits for edit in candidate.plan.of(Quantize))
    return candidate.macs * (0.5 if integers else 1.0)


def better(run: Run, one: Candidate, other: Candidate) -> bool:
    """Whether `one` is better at the goal: clearly by measurement, else by the work it does."""
    mine, theirs = gain(run, one), gain(run, other)
    assert mine is not None
    assert theirs is not None
    return mine.above(theirs) or (not theirs.above(mine) and work(one) < work(other))


def choose_finalists(run: Run, candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Return the finalists from the safest to the boldest, and the others with their fates.

    The less was taken away, the safer a candidate is before any data is seen; that order holds unless the search data
    speak clearly against it. Each finalist is better at the goal than all before it, so that the last one that passes
    is the answer, unless a second look at times that did not tell two apart shows another to be faster. As the first
    refusal ends the test, only those go before it that are expected to help: of a metric with scores, the sequence of
    the largest expected gain; else, of more than eight, or than there is time for, the safest and the boldest others.
    """
    judged = [judge(run, candidate) for candidate in candidates]
    others = [candidate for candidate in judged if candidate.fate is not Fate.UNTESTED]
    able = [candidate for candidate in judged if candidate.fate is Fate.UNTESTED]
    front: list[Candidate] = []
    # Of equal work the clearly safer, else the one that was made later, out of the others.
    later = {candidate.name: -place for place, candidate in enumerate(able)}
    for candidate in sorted(able, key=lambda c: (-work(c), -round(_sure(run, c)), later[c.name])):
        as_safe = (kept for kept in front if _sure(run, candidate) <= _sure(run, kept) + _CLEARLY)
        milder = next((kept for kept in as_safe if not better(run, candidate, kept)), None)
        if milder is None:
            front.append(candidate)
        else:
            reason = f"{milder.name} is milder and no worse at {run.request.goal}"
            others.append(replace(candidate, fate=Fate.DOMINATED, reason=reason))
    finalists: list[Candidate] = []
    for index, candidate in enumerate(front):
        safer = next((o for o in front[index + 1 :] if _replaces(run, o, candidate)), None)
        if safer is None:
            # A clearly safer one that is slower than some before it goes before those.
            faster = (place for place, kept in enumerate(finalists) if not better(run, candidate, kept))
            finalists.insert(next(faster, len(finalists)), candidate)
        else:
            reason = f"{safer.name} is no worse and clearly safer on the search data"
            others.append(replace(candidate, fate=Fate.DOMINATED, reason=reason))
    chosen = _sequence(run, finalists)
    reason = "on the search data, testing it is more likely to end the test early than to help"
    others += [replace(c, reason=reason) for c in finalists if c not in chosen]
    return chosen, others


def _replaces(run: Run, bolder: Candidate, candidate: Candidate) -> bool:
    """Whether a bolder candidate is clearly safer on the search data, and no worse at the goal."""
    return _sure(run, bolder) > _sure(run, candidate) + _CLEARLY and not better(run, candidate, bolder)


def _sequence(run: Run, finalists: Sequence[Candidate]) -> list[Candidate]:
    """Return those that go before the sealed data, in their order."""
    most = run.ending.finalists(run.clock.remaining_s, MOST_FINALISTS // len(run.request.targets))
    base = run.base.quality
    gains = [0.0 if (found := gain(run, c)) is None else found.value for c in finalists]
    scores = [c.quality.scores for c in finalists if c.quality is not None and c.quality.scores is not None]
    if not finalists or base is None or base.scores is None or len(scores) < len(finalists):
        return [*finalists[:1], *finalists[1:][-(most - 1) :]]
    differences = np.stack([(base.scores - own).double().numpy() for own in scores], axis=1)
    passes = outlook(
        differences,
        [_taken(run, candidate) for candidate in finalists],
        samples=len(run.task.certification),
        margin=run.margin,
        confidence=run.request.confidence,
        seed=run.request.seed,
    )
    return [finalists[index] for index in best_sequence(gains, passes, most)]


def _taken(run: Run, candidate: Candidate) -> float:
    """Return the share of the original that a candidate lacks: of its multiply-adds, and a little for rounding."""
    kept = min(1.0, candidate.macs / run.base.macs) if run.base.macs else 1.0
    return 1.0 - kept * (1.0 - _ROUNDING if candidate.plan.of(Quantize) else 1.0)


def _sure(run: Run, candidate: Candidate) -> float:
    return min(_SURE, safety(run, candidate))
