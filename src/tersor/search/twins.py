"""The twins of a float network in integers: one a scheme; where rounding costs too much, mixed and trained ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tersor.search.candidate import Candidate
from tersor.search.effort import Effort
from tersor.search.integers import WORDS, begun, in_integers
from tersor.search.mixed import MIXABLE, in_part
from tersor.search.run import Build, Run, attempt, trains

Report = Callable[[Candidate], None]

#: Passes that training in integers takes at least.
_LEAST_PASSES = 0.5
#: A training step in simulated integers takes up to so many in floating point.
_SIMULATED = 2.0
#: Where rounding loses less than this part of the margin, what else is done about it gains no more.
_COSTLY = 0.25


@dataclass(frozen=True, slots=True)
class Twins:
    """Makes twins and reports them.

    Attributes:
        run: the search.
        report: told about each twin.
        schemes: the schemes to use, most promising first.
    """

    run: Run
    report: Report
    schemes: tuple[str, ...]

    def name(self, parent: Candidate, scheme: str) -> str:
        """Return the name of the twin of `parent` in a scheme; the most promising integers are plain `int8`.

        Example:
            >>> from tersor.planning.plan import Plan
            >>> twins = Twins(None, print, ("dynamic", "static", "int4"))
            >>> original, cut = Candidate("original", Plan()), Candidate("joint 45%", Plan())
            >>> [twins.name(original, scheme) for scheme in twins.schemes], twins.name(cut, "dynamic")
            (['int8', 'int8 static', 'int4 weights'], 'joint 45% + int8')
        """
        own = f"int8 {scheme}" if scheme in ("static", "dynamic") else f"{scheme} weights"
        own = "int8" if scheme == self.schemes[0] and scheme in ("static", "dynamic") else own
        return own if parent.name == "original" else f"{parent.name} + {own}"

    def of(self, parent: Candidate, schemes: Sequence[str], effort: Effort) -> dict[str, Candidate]:
        """Report and return the twins of `parent`, and report what is mended of them."""
        made = self.rounded(parent, schemes)
        self.mend(parent, made, effort)
        return made

    def rounded(self, parent: Candidate, schemes: Sequence[str]) -> dict[str, Candidate]:
        """Report and return the twins of `parent`; all are begun at once, and each is reported in its turn."""
        jobs = [(self._blank(parent, scheme), in_integers(self.run, parent, scheme)) for scheme in schemes]
        builds = begun(self.run, jobs)
        made = {}
        for scheme, (blank, _), build in zip(schemes, jobs, builds, strict=True):
            made[scheme] = attempt(self.run, blank, build)
            self.report(made[scheme])
        return made

    def mend(self, parent: Candidate, made: Mapping[str, Candidate], effort: Effort) -> None:
        """Report two more of each twin in which rounding costs too much.

        One keeps the worst sites in floating point, the other is trained in integers.
        """
        run = self.run
        for scheme, twin in made.items():
            if twin.quality is None or not run.drop(twin) >= run.margin > run.drop(parent):
                continue
            if run.drop(twin) - run.drop(parent) < _COSTLY * run.margin:
                run.say(
                    "candidate",
                    f"{twin.name}: {parent.name} itself is near the limit, and rounding costs little",
                )
                continue
            self._mended(parent, scheme, twin, effort)

    def _blank(self, parent: Candidate, scheme: str) -> Candidate:
        return Candidate(
            name=self.name(parent, scheme),
            plan=parent.plan,
            steps=(*parent.steps, WORDS[scheme]),
            why=f"{parent.name} in integers",
        )

    def _mended(self, parent: Candidate, scheme: str, twin: Candidate, effort: Effort) -> None:
        run, why = self.run, f"{twin.name} misses the limit and {parent.name} holds it"
        blank = replace(self._blank(parent, scheme), why=why)
        # Which sites to spare is learnt from data.
        if scheme in MIXABLE and not run.task.drawn and run.clock.left_s > 0:
            self._further(replace(blank, name=f"{twin.name} in part"), in_part(run, parent, scheme))
        if trains(run) and _affordable(run, effort):
            epochs = _passes(effort)
            steps = (*twin.steps, f"train in integers for {epochs:.3g} passes")
            trained = replace(blank, name=f"{twin.name} trained", steps=steps)
            self._further(trained, in_integers(run, parent, scheme, epochs=epochs))

    def _further(self, blank: Candidate, build: Build) -> None:
        (placed,) = begun(self.run, [(blank, build)])
        self.report(attempt(self.run, blank, placed))


def _affordable(run: Run, effort: Effort) -> bool:
    """Whether there is time to train in integers."""
    return _SIMULATED * (effort.epoch_s or 0.0) * _passes(effort) < run.clock.left_s / 2


def _passes(effort: Effort) -> float:
    """Return the passes of a training in integers."""
    return max(_LEAST_PASSES, effort.epochs / 4)
