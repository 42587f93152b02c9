"""Teach the cost model before anything is trained: thinned copies of the files at hand, timed for a moment each."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from tersor.errors import TersorError
from tersor.exporting.artefact import Artefact
from tersor.graph.structure import Graph
from tersor.graph.trace import trace
from tersor.planning.cost_model import Features, features
from tersor.planning.space import CUT, Design, Space
from tersor.search.harm import space_of
from tersor.search.pricebook import Pricebook
from tersor.search.prices import Prices, Seen, glance
from tersor.search.run import Run
from tersor.search.thinned import thinned

#: Copies that are timed in each precision: without a budget, and at most.
COPIES, MOST = 8, 24
#: Seconds that a copy takes, and the share of the time left that all of them may take.
_COPY_S, _SHARE = 2.0, 0.08
#: Only files of this runtime can be thinned.
_RUNTIME = "onnxruntime"


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
    book = Pricebook.of(run, whole)
    if known := book.read():
        run.say("measure", f"latencies of {len(known)} thinned copies are known from before")
        return prices.learned(_rescaled(known, prices))
    count = copies_for(run.clock.left_s, len(files))
    with tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        made = _copies(run, space, graph, files, designs(space, count, run.request.seed), Path(folder))
        taught = glance(run, prices, dict(enumerate(made)))
    fresh = taught.seen[len(prices.seen) :]
    if fresh:
        book.write((Seen(whole["float"], prices.base_s), *fresh))
    return taught


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
