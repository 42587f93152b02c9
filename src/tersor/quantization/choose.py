"""Choose a recipe by what it does to the outputs, on samples that it was not fitted on."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import fx, nn

from tersor.loading.inputs import Inputs, batch_size, call, main_output, map_tensors
from tersor.planning.plan import Plan
from tersor.quantization.algorithms.equalize import pairs
from tersor.quantization.build import build
from tersor.quantization.fidelity import sqnr
from tersor.quantization.hardware import Scheme
from tersor.quantization.model import Attempt, QuantizedModel
from tersor.quantization.norms import norm_groups, token_groups
from tersor.quantization.recipe import Recipe

#: A later recipe replaces an earlier, simpler one only if it gains this much, in decibels.
GAIN_DB = 0.25


def choose(
    graph_module: fx.GraphModule,
    batches: Sequence[Inputs],
    scheme: Scheme,
    plan: Plan | None,
    *,
    budget_s: float,
) -> QuantizedModel:
    """Return the model of the best recipe, trying one change of the best so far at a time until the time is over.

    Args:
        graph_module: a captured model.
        batches: calibration batches; the last quarter of the samples is held out to judge on.
        scheme: the codes.
        plan: which sites run in integers.
        budget_s: time to spend, in seconds; the first recipe is always finished.

    Returns:
        The best model, with `attempts`.
    """
    started = time.monotonic()
    fitting, judging = split(batches)
    expected = outputs(graph_module, judging)
    attempts: list[Attempt] = []
    best: QuantizedModel | None = None
    best_db, longest = float("-inf"), 0.0
    queue = [change for change in _STARTS[scheme.kind] if _has_a_place(change, graph_module.graph)]
    while queue:
        recipe, began = queue.pop(0)(best.recipe if best else Recipe()), time.monotonic()
        if best is not None and began - started + 2.0 * longest > budget_s:
            break
        candidate = build(graph_module, fitting, scheme, plan, recipe)
        db = sqnr(expected, outputs(candidate, judging))
        longest = max(longest, time.monotonic() - began)
        attempts.append(Attempt(recipe, db, time.monotonic() - began))
        if best is None or db > best_db + GAIN_DB:
            best, best_db = candidate, db
    assert best is not None
    best.attempts = tuple(attempts)
    return best


def _ranges(name: str):
    return lambda best: Recipe(name, best.before, best.after)


def _before(name: str):
    return lambda best: Recipe(best.ranges, (*best.before, name), best.after)


def _after(name: str):
    return lambda best: Recipe(best.ranges, best.before, (*best.after, name))


#: The changes that are tried for each kind of scheme, cheapest first.
_STARTS = {
    "static": (
        _ranges("mse"), _ranges("minmax"), _ranges("percentile"), _before("equalize"), _before("smooth"),
        _before("balance"), _after("bias"), _after("gptq"), _after("adaround"),
    ),
    "dynamic": (
        _ranges("minmax"), _ranges("mse"), _before("smooth"), _before("balance"), _after("gptq"), _after("bias"),
    ),
    "weights": (_ranges("minmax"), _ranges("mse"), _before("awq"), _after("gptq"), _ranges("hqq")),
}  # fmt: skip


#: What finds the places that a rescaling needs.
_PLACES: dict[str, Callable[[fx.Graph], list]] = {
    "equalize": pairs,
    "smooth": norm_groups,
    "awq": norm_groups,
    "balance": token_groups,
}


def _has_a_place(change: Callable[[Recipe], Recipe], graph: fx.Graph) -> bool:
    return all(_PLACES[name](graph) for name in change(Recipe()).before)


def split(batches: Sequence[Inputs]) -> tuple[list[Inputs], list[Inputs]]:
    """Return the first three quarters of the batches and the rest; a single batch is cut in two.

    Example:
        >>> fit, judge = split([(torch.zeros(8, 1),)])
        >>> batch_size(fit[0]), batch_size(judge[0])
        (6, 2)
    """
    if len(batches) > 1:
        cut = min(len(batches) - 1, max(1, round(len(batches) * 0.75)))
        return list(batches[:cut]), list(batches[cut:])
    size = batch_size(batches[0])
    if size < 2:
        return list(batches), list(batches)
    cut = max(1, size * 3 // 4)
    part = lambda start, stop: map_tensors(lambda t: t[start:stop] if len(t) == size else t, batches[0])
    return [part(0, cut)], [part(cut, size)]


@torch.no_grad()
def outputs(model: nn.Module, batches: Sequence[Inputs]) -> np.ndarray:
    """Return the main output on all batches."""
    return np.concatenate([main_output(call(model, batch)).cpu().numpy() for batch in batches])
