"""Copies of the original that show what smaller networks cost: sliced inside its file, or cut and exported anew."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from tersor.errors import TersorError
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export
from tersor.exporting.feed import feed
from tersor.exporting.files import ending_of
from tersor.graph.structure import Graph
from tersor.planning.anatomy import Anatomy, Left
from tersor.planning.cost_model import Features, features
from tersor.planning.plan import Cut, Factorize, Plan
from tersor.quantization.build import build as build_integers
from tersor.quantization.capture import capture
from tersor.quantization.recipe import Recipe
from tersor.search.apart import opening_apart
from tersor.search.guard import Exceeded, watched
from tersor.search.integers import allowed_sites
from tersor.search.run import PATIENCE_S, Run, calibration_inputs, codes_for
from tersor.search.thinned import thinned
from tersor.surgery.apply import apply, close

#: Samples that a copy in integers is calibrated on: its outputs mean nothing.
_FEW = 32
#: Seconds that timing a copy takes, opening it included.
_TIMING_S = 1.0

#: A file, and what it does.
Copy: TypeAlias = tuple[Artefact, Features]


@dataclass(frozen=True)
class Copies:
    """Makes copies of the original whose outputs mean nothing, and whose latencies are those of real candidates.

    Attributes:
        run: the search.
        graph: trace of the original.
        anatomy: its layers.
        files: file of the original in each precision.
        folder: where copies go.
    """

    run: Run
    graph: Graph
    anatomy: Anatomy
    files: Mapping[str, Artefact]
    folder: Path

    def thin(self, wanted: Sequence[Left]) -> dict[str, list[Copy]]:
        """Return copies sliced inside the file, which is quick, for each precision whose file that can be done to.

        The first one says whether it can: it has to run.
        """
        found: dict[str, list[Copy]] = {}
        for precision, file in self.files.items():
            try:
                found[precision] = [self._thin(file, precision, left, i) for i, left in enumerate(wanted)]
            except TersorError as error:
                reason = str(error).partition("\n")[0]
                self.run.say("measure", f"no thinned copies in {precision}: {reason}")
        return found

    def _thin(self, file: Artefact, precision: str, left: Left, index: int) -> Copy:
        path = self.folder / f"{precision}-thin{index}{file.path.suffix}"
        copy = thinned(file, self.graph, left.kept, path)
        if index == 0:
            request = self.run.request
            arrays, _ = feed(copy, self.run.task.inputs, request.call_size)
            with opening_apart(threads=request.threads, patience_s=PATIENCE_S) as opened:
                opened(copy)(arrays)
        return copy, features(self.anatomy, left, precision)

    def real(self, wanted: Sequence[tuple[str, Left]], most_s: float, *, guess_s: float = 0.0) -> list[Copy]:
        """Return networks cut, factorized, rounded and exported, the first ones of those wanted that there is time for.

        Args:
            wanted: precision, and what is left of the original.
            most_s: seconds that all of them may take.
            guess_s: seconds that one takes, before the first one in its precision shows it.
        """
        begun_s, found = time.monotonic(), []
        slowest_s: dict[str, float] = {}
        for index, (precision, left) in enumerate(wanted):
            start_s = time.monotonic()
            left_s = most_s - (start_s - begun_s) - _TIMING_S * len(found)
            if slowest_s.get(precision, guess_s) > left_s:
                break
            try:
                with watched(left_s, self.run.request.max_memory, self.run.executor.processes):
                    found.append(self._real(precision, left, f"{precision}-real{index}"))
            except Exceeded as reason:
                self.run.say("measure", f"no more copies: one in {precision} {reason}")
                break
            except Exception as error:  # without it there is less to learn, and no more is lost
                self.run.say("measure", f"no copy in {precision}: {str(error).partition(chr(10))[0]}")
            took_s = time.monotonic() - start_s + _TIMING_S
            slowest_s[precision] = max(took_s, slowest_s.get(precision, 0.0))
        return found

    def _real(self, precision: str, left: Left, name: str) -> Copy:
        run, task = self.run, self.run.task
        cuts = tuple(Cut(group, tuple(range(count))) for group, count in left.kept.items())
        whole = Plan((*cuts, *(Factorize(layer, rank) for layer, rank in left.ranks.items())))
        plan = close(whole, self.graph)
        model = apply(task.model, plan, self.graph).model
        if precision != "float":
            graph, few = capture(model, task.inputs), calibration_inputs(task, _FEW)
            sites = allowed_sites(run, graph, precision)
            model = build_integers(graph, few, codes_for(run, precision), sites, Recipe())
        path = self.folder / f"{name}{ending_of(run.request.target)}"
        file = export(model, task.inputs, path, run.request.target, check=False)
        left = replace(left, kept={cut.group: len(cut.keep) for cut in plan.of(Cut)})
        return file, features(self.anatomy, left, precision)
