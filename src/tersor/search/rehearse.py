"""Teach the cost model before anything is trained: copies of the original, timed for a moment each.

Thinned copies show what channels cost; factorized ones what further layers cost, which no cut ever shows.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

import numpy as np
import torch

from tersor.errors import TersorError
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export
from tersor.graph.structure import Graph
from tersor.graph.trace import trace
from tersor.planning.anatomy import Left
from tersor.planning.cost_model import Features, features
from tersor.planning.plan import Factorize, Plan
from tersor.planning.space import CUT, Design, Space
from tersor.quantization.quantize import quantize_module
from tersor.search.harm import rankable, space_of
from tersor.search.pricebook import Pricebook
from tersor.search.prices import Prices, Seen, glance
from tersor.search.run import Run, calibration_inputs, codes_for
from tersor.search.thinned import thinned
from tersor.surgery.apply import apply

#: Copies that are timed in each precision: without a budget, and at most.
COPIES, MOST = 8, 24
#: Seconds that a copy takes, and the share of the time left that all of them may take.
_COPY_S, _SHARE = 2.0, 0.08
#: Factorized copies have to be exported, so they are made where there are so many seconds, for a share of them.
_ROOMY_S, _FACTORS_SHARE = 300.0, 0.06
#: Which part of the layers that can be factorized is, and at which of their ranks, from high to low.
_FACTORS = ((1.0, 0.6), (0.5, 1.0), (0.5, 0.3))
#: Only files of this runtime can be thinned.
_RUNTIME = "onnxruntime"
#: Samples that a factorized copy in integers is calibrated on: its outputs mean nothing.
_FEW = 32


def rehearse(run: Run, prices: Prices, files: Mapping[str, Artefact]) -> Prices:
    """Return `prices` after timing copies of the original's files with random cuts.

    Args:
        run: the search.
        prices: so far.
        files: file of the original in each precision.
    """
    if not prices.timed or run.request.target != _RUNTIME:
        return prices
    task = run.task
    graph = trace(task.model, task.inputs)
    nothing_known = {group.name: torch.zeros(group.size) for group in graph.groups if group.prunable}
    space = space_of(task, task.model, graph, nothing_known, (), (CUT,))
    if not space.units:
        return prices
    whole = {precision: features(space.anatomy, space.left(space.origin), precision) for precision in files}
    factors = _has_factors(run)
    book = Pricebook.of(run, whole, factors=factors)
    if known := book.read():
        run.say("measure", f"latencies of {len(known)} copies are known from before")
        return prices.learned(_rescaled(known, prices))
    count = copies_for(run.clock.left_s, len(files))
    with tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        made = _copies(run, space, graph, files, designs(space, count, run.request.seed), Path(folder))
        if factors:
            made += _factorized(run, space, graph, tuple(files), Path(folder))
        taught = glance(run, prices, dict(enumerate(made)))
    fresh = taught.seen[len(prices.seen) :]
    if fresh:
        book.write((Seen(whole["float"], prices.base_s), *fresh))
    return taught


def _has_factors(run: Run) -> bool:
    """Whether factorized copies are made: where layers may be factorized, and there is the time."""
    return "factorize" in run.request.methods and _ROOMY_S < run.clock.left_s < inf


def _factorized(
    run: Run, space: Space, graph: Graph, precisions: Sequence[str], folder: Path
) -> list[tuple[Artefact, Features]]:
    """Return copies of the original in which many layers are two factors, with what each of them does."""
    left_s, begun_s, found = run.clock.left_s, time.monotonic(), []
    ranked = rankable(run.task.model, run.task, graph, set())
    rng = np.random.default_rng(run.request.seed)
    for index, (part, level) in enumerate(_FACTORS if ranked else ()):
        ranks = {
            name: ranks[1 + round(level * (len(ranks) - 2))]
            for name, ranks in ranked.items()
            if rng.random() < part
        }
        amounts = Left(ranks=ranks)
        for precision in precisions:
            if time.monotonic() - begun_s > _FACTORS_SHARE * left_s:
                return found
            path = folder / f"{precision}-factors{index}.onnx"
            try:
                found.append(
                    (_split(run, graph, ranks, precision, path), features(space.anatomy, amounts, precision))
                )
            except TersorError as error:
                run.say("measure", f"no factorized copy in {precision}: {error}")
    return found


def _split(run: Run, graph: Graph, ranks: Mapping[str, int], precision: str, path: Path) -> Artefact:
    """Return the file of the original with some layers as two factors, by truncation alone."""
    task = run.task
    plan = Plan(tuple(Factorize(layer, rank) for layer, rank in ranks.items()))
    model = apply(task.model, plan, graph).model
    if precision != "float":
        codes = codes_for(run, precision)
        model = quantize_module(model, task.inputs, calibration_inputs(task, _FEW), scheme=codes)
    return export(model, task.inputs, path, run.request.target)


def _rescaled(known: Sequence[Seen], prices: Prices) -> list[Seen]:
    """Return earlier measurements in the seconds of today, by the original, which comes first in the book."""
    then = known[0].seconds
    factor = prices.base_s / then if then else 1.0
    return [Seen(seen.amounts, seen.seconds * factor) for seen in known[1:]]


def copies_for(left_s: float, precisions: int) -> int:
    """Return how many copies to time in each precision.

    Example:
        >>> copies_for(float("inf"), 2), copies_for(60.0, 2), copies_for(1500.0, 2)
        (8, 1, 24)
    """
    if left_s == float("inf"):
        return COPIES
    return int(min(MOST, max(0.0, _SHARE * left_s / _COPY_S / max(1, precisions))))


def designs(space: Space, count: int, seed: int) -> list[Design]:
    """Return random designs, from a little to almost everything gone, different ones from unit to unit."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        strength = (index + 1) / count
        found.append(
            tuple(round(float(rng.uniform(0.0, strength)) * (len(unit.levels) - 1)) for unit in space.units)
        )
    return found


def _copies(
    run: Run, space: Space, graph: Graph, files: Mapping[str, Artefact], wanted: list[Design], folder: Path
) -> list[tuple[Artefact, Features]]:
    """Return the copies that could be written, with what each of them does."""
    found = []
    for precision, artefact in files.items():
        for index, design in enumerate(wanted):
            left = space.left(design)
            try:
                copy = thinned(artefact, graph, left.kept, folder / f"{precision}{index}.onnx")
            except TersorError as error:
                run.say("measure", f"no thinned copies in {precision}: {error}")
                break
            found.append((copy, features(space.anatomy, left, precision)))
    return found
