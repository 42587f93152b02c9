"""Choose ranks: Factorize edits from spectra. Pure data; no layer is built."""

import heapq
from collections.abc import Callable, Mapping, Sequence

from tersor._check import fraction
from tersor.errors import ArgumentError, PlanError
from tersor.factorization.spectrum import Spectrum
from tersor.planning.plan import Factorize, Plan

#: From the rank of each factorized layer to a number: multiply-adds, parameters, predicted seconds, ...
CostOf = Callable[[Mapping[str, int]], float]

#: A layer goes through at most this many ranks when a budget is approached.
_STEPS = 64


def factorize_energy(spectra: Sequence[Spectrum], *, energy: float) -> Plan:
    """Plan the smallest ranks that keep the share `energy`, where that makes the layer cheaper.

    Args:
        spectra: of the layers to consider.
        energy: share kept, in [0, 1); 0.99 keeps 99 per cent of the (output) energy of each layer.

    Raises:
        ArgumentError: if `energy` is no fraction.
        PlanError: if no layer gets cheaper; the message has the energy at which the first one does.

    Example:
        >>> import torch
        >>> flat = Spectrum("fc", 100, 100, torch.tensor([10.0, 1.0, 0.1, 0.0]))
        >>> print(factorize_energy([flat], energy=0.95))
        Factorize fc: rank 1
    """
    fraction("energy", energy)
    ranks = {found.layer: found.rank_for(energy) for found in spectra}
    edits = tuple(
        Factorize(found.layer, ranks[found.layer])
        for found in spectra
        if ranks[found.layer] <= found.break_even
    )
    if not edits:
        best = max((1 - found.lost(found.break_even) for found in spectra if found.break_even), default=0.0)
        raise PlanError(
            f"No layer gets cheaper at an energy of {energy:g}: the first one does at {best:.4g}. "
            "Lower `energy`, or leave the layers as they are."
        )
    return Plan(edits)


def factorize_ratio(spectra: Sequence[Spectrum], *, ratio: float, multiple_of: int = 1) -> Plan:
    """Plan ranks that remove `ratio` of the parameters of every layer.

    Args:
        spectra: of the layers to factorize.
        ratio: fraction removed, in [0, 1).
        multiple_of: ranks are rounded down to a multiple, and never below one multiple.

    Raises:
        ArgumentError: if `ratio` is no fraction or `multiple_of < 1`.
        PlanError: if no layer has a rank that saves anything.

    Example:
        >>> import torch
        >>> print(factorize_ratio([Spectrum("fc", 64, 64, torch.ones(64))], ratio=0.5))
        Factorize fc: rank 16
    """
    fraction("ratio", ratio)
    _check_multiple(multiple_of)
    edits = []
    for found in spectra:
        rank = int((1 - ratio) * found.outputs * found.features / (found.outputs + found.features))
        rank = max(multiple_of, rank // multiple_of * multiple_of)
        if rank <= found.break_even:
            edits.append(Factorize(found.layer, rank))
    if not edits:
        raise PlanError("No layer is large enough for two factors to be cheaper. Prune units instead.")
    return Plan(tuple(edits))


def factorize_to_budget(
    spectra: Sequence[Spectrum],
    *,
    cost: CostOf,
    budget: float,
    keep_energy: float = 0.5,
    multiple_of: int = 1,
) -> Plan:
    r"""Plan the ranks that bring `cost` to at most `budget` while the least energy is lost.

    Greedy over all layers: the next step is the one with the least share of lost energy per cost saved. The
    first step of a layer goes to the largest rank that saves anything, so a layer is split only when that pays.

    Args:
        spectra: of the layers to consider.
        cost: from `{layer: rank}` to a number; layers that are left out stay whole. See `rank_cost`.
        budget: largest cost allowed, in the unit of `cost`.
        keep_energy: share of every layer's energy that stays, in [0, 1).
        multiple_of: ranks are multiples of this.

    Raises:
        ArgumentError: if `keep_energy` is no fraction or `multiple_of < 1`.
        PlanError: if the budget cannot be reached; the message has the lowest cost that can.
    """
    fraction("keep_energy", keep_energy)
    _check_multiple(multiple_of)
    ladders = {found.layer: _ladder(found, keep_energy, multiple_of) for found in spectra}
    table, ranks = {found.layer: found for found in spectra}, dict[str, int]()

    def step(layer: str, now: float) -> tuple[float, str] | None:
        if not ladders[layer]:
            return None
        before = table[layer].lost(ranks[layer]) if layer in ranks else 0.0
        saved = now - cost({**ranks, layer: ladders[layer][0]})
        return ((table[layer].lost(ladders[layer][0]) - before) / saved if saved > 0 else float("inf"), layer)

    now = cost({})
    queue = [entry for layer in ladders if (entry := step(layer, now))]
    heapq.heapify(queue)
    while now > budget and queue:
        _, layer = heapq.heappop(queue)
        ranks[layer] = ladders[layer].pop(0)
        now = cost(ranks)
        if entry := step(layer, now):
            heapq.heappush(queue, entry)
    if now > budget:
        raise PlanError(
            f"The cost cannot go below {now:.6g} (asked: {budget:.6g}) with keep_energy={keep_energy:g}. "
            "Raise the budget, lower `keep_energy`, or prune units as well."
        )
    return Plan(tuple(Factorize(layer, rank) for layer, rank in ranks.items()))


def rank_cost(spectra: Sequence[Spectrum], amounts: Mapping[str, int], fixed: float = 0.0) -> CostOf:
    """Return the cost of ranks: `fixed`, plus for each layer its amount scaled by r (out + in) / (out in).

    Args:
        spectra: of the layers.
        amounts: multiply-adds or parameters of each whole layer, by its path.
        fixed: what no rank changes.

    Example:
        >>> import torch
        >>> cost = rank_cost([Spectrum("fc", 64, 64, torch.ones(64))], {"fc": 4096})
        >>> cost({}), cost({"fc": 16})
        (4096.0, 2048.0)
    """
    shares = {
        found.layer: (found.outputs + found.features) / (found.outputs * found.features) for found in spectra
    }

    def cost(ranks: Mapping[str, int]) -> float:
        return fixed + sum(
            amounts[layer] * (ranks[layer] * share if layer in ranks else 1.0)
            for layer, share in shares.items()
        )

    return cost


def _ladder(found: Spectrum, keep_energy: float, multiple_of: int) -> list[int]:
    """Return the ranks that a layer may be cut to, falling."""
    stride = multiple_of * max(1, found.break_even // (_STEPS * multiple_of))
    lowest = max(found.rank_for(keep_energy), 1)
    return [rank for rank in range(found.break_even // stride * stride, 0, -stride) if rank >= lowest]


def _check_multiple(multiple_of: int) -> None:
    if multiple_of < 1:
        raise ArgumentError(f"`multiple_of` must be at least 1, got {multiple_of!r}.")
