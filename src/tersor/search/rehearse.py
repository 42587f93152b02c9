"""Teach the cost model before anything is trained: copies of the original, timed for a moment each.

Copies with fewer channels show what channels cost; factorized ones what further layers cost, which no cut ever shows.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

import numpy as np
import torch

from tersor.exporting.artefact import Artefact
from tersor.graph.structure import Graph
from tersor.graph.trace import trace
from tersor.planning.anatomy import Left
from tersor.planning.cost_model import features
from tersor.planning.space import CUT, Design, Space
from tersor.search.copies import Copies, Copy
from tersor.search.harm import rankable, space_of
from tersor.search.pricebook import Pricebook
from tersor.search.prices import Prices, Seen, glance
from tersor.search.run import Run

#: Copies that are timed in each precision: without a budget, and at most.
COPIES, MOST = 8, 24
#: Seconds that a thinned copy takes, and the share of the time left that all copies with fewer channels may take; so
#: many copies a precision may take the larger share, as fewer do not tell a constant from what channels cost.
_COPY_S, _SHARE, _LEAST, _LARGER_SHARE = 2.0, 0.08, 4, 0.2
#: Factorized copies are made where there are so many seconds, for a further share of them.
_ROOMY_S, _FACTORS_SHARE = 300.0, 0.06
#: Which part of the layers that can be factorized is, and at which of their ranks, from high to low.
_FACTORS = ((1.0, 0.6), (0.5, 1.0), (0.5, 0.3))
#: Without a budget so many copies a precision are cut and exported, where files cannot be thinned.
_FEW = 4
#: How much longer than tracing the original cutting and exporting a copy may take, before the first one shows it.
_TRACES = 5.0


def rehearse(run: Run, prices: Prices, files: Mapping[str, Artefact]) -> Prices:
    """Return `prices` after timing copies of the original with random cuts.

    Copies are sliced inside the original's files where that can be done, which is quick; else they are cut and
    exported, fewer of them.

    Args:
        run: the search.
        prices: so far.
        files: file of the original in each precision.
    """
    if not prices.timed:
        return prices
    task, begun_s = run.task, time.monotonic()
    graph = trace(task.model, task.inputs)
    guess_s = _TRACES * (time.monotonic() - begun_s)
    nothing_known = {group.name: torch.zeros(group.size) for group in graph.groups if group.prunable}
    space = space_of(task, task.model, graph, nothing_known, (), (CUT,))
    if not space.units:
        return prices
    whole = {precision: features(space.anatomy, space.left(space.origin), precision) for precision in files}
    factors = _factors(run, graph)
    book = Pricebook.of(run, whole, factors=bool(factors))
    if prices.base_s and (known := book.read()):
        run.say("measure", f"latencies of {len(known)} copies are known from before")
        return prices.learned(_rescaled(known, prices))
    with tempfile.TemporaryDirectory(prefix="tersor-") as folder:
        made = _made(Copies(run, graph, space.anatomy, files, Path(folder)), space, factors, guess_s)
        taught = glance(run, prices, dict(enumerate(made)))
    fresh = taught.seen[len(prices.seen) :]
    if fresh:
        book.write((Seen(whole["float"], prices.base_s), *fresh))
    return taught


def _made(copies: Copies, space: Space, factors: Sequence[Left], guess_s: float) -> list[Copy]:
    """Return the copies that there is time for: thinned ones, and real ones where those are needed."""
    run, left_s = copies.run, copies.run.clock.left_s
    count = copies_for(left_s, len(copies.files))
    cuts = [space.left(design) for design in designs(space, count, run.request.seed)]
    thin = copies.thin(cuts)
    rest = [precision for precision in copies.files if precision not in thin]
    if left_s == inf:
        cuts = cuts[:_FEW]
    wanted = [(precision, left) for left in cuts for precision in rest]
    further = [(precision, left) for left in factors for precision in copies.files]
    # Few may fit: what channels cost comes first, from bold to mild, then a glimpse of factors.
    wanted = [*wanted[: 2 * len(rest)], *further, *wanted[2 * len(rest) :]]
    share = (_SHARE if rest else 0.0) + (_FACTORS_SHARE if factors else 0.0)
    real = copies.real(wanted, share * left_s, guess_s=guess_s) if wanted else []
    return [*(copy for found in thin.values() for copy in found), *real]


def _factors(run: Run, graph: Graph) -> list[Left]:
    """Return what to factorize in each factorized copy; none where layers may not be, or there is no time."""
    if "factorize" not in run.request.methods or not _ROOMY_S < run.clock.left_s < inf:
        return []
    ranked = rankable(run.task.model, run.task, graph, set())
    rng = np.random.default_rng(run.request.seed)
    return [
        Left(
            ranks={
                name: ranks[1 + round(level * (len(ranks) - 2))]
                for name, ranks in ranked.items()
                if rng.random() < part
            }
        )
        for part, level in (_FACTORS if ranked else ())
    ]


def _rescaled(known: Sequence[Seen], prices: Prices) -> list[Seen]:
    """Return earlier measurements in the seconds of today, by the original, which comes first in the book."""
    then = known[0].seconds
    factor = prices.base_s / then if then else 1.0
    return [Seen(seen.amounts, seen.seconds * factor) for seen in known[1:]]


def copies_for(left_s: float, precisions: int) -> int:
    """Return how many thinned copies to time in each precision.

    Example:
        >>> copies_for(float("inf"), 2), copies_for(60.0, 2), copies_for(1500.0, 2)
        (8, 3, 24)
    """
    if left_s == float("inf"):
        return COPIES
    fit = max(0.0, left_s) / _COPY_S / max(1, precisions)
    return int(min(MOST, max(_SHARE * fit, min(_LEAST, _LARGER_SHARE * fit))))


def designs(space: Space, count: int, seed: int) -> list[Design]:
    """Return random designs, different from unit to unit: the boldest first, and each further one far from the others.

    However many of the first ones are taken, they go from little to almost everything gone.
    """
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        strength = (index + 1) / count
        found.append(
            tuple(round(float(rng.uniform(0.0, strength)) * (len(unit.levels) - 1)) for unit in space.units)
        )
    # Numbers in the order of their digits from the last to the first fall between each other.
    order = sorted(range(count), key=lambda index: f"{index:016b}"[::-1])
    return [found[count - 1 - index] for index in order]
