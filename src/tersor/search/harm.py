"""The units of one network with the harm of every option, from one backward pass for each sample."""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from tersor.analysis.collect import collect, input_moments, probe
from tersor.analysis.ties import ties
from tersor.analysis.uses import on_device_of, tensors
from tersor.factorization.factors import factors
from tersor.factorization.spectrum import candidates, layer_of
from tersor.graph.groups import Group
from tersor.graph.structure import Graph
from tersor.loading.inputs import batch_size, call, main_output, map_tensors
from tersor.loading.task import Batch, Task
from tersor.planning.anatomy import anatomy
from tersor.planning.space import CUT, DROP, RANK, Space, Unit, falling, levels_of
from tersor.pruning.criteria.fisher import Fisher
from tersor.pruning.score import score

#: Samples whose gradients say which units matter; whole layers and blocks need fewer.
SAMPLES, _FEWER = 256, 96
#: Ranks that are tried, as parts of the largest rank that saves anything.
_RANKS = (0.9, 0.7, 0.5, 0.35, 0.25, 0.15)
#: Layers with a smaller share of the multiply-adds are not factorized.
_WORTHWHILE = 0.01


def evidence(task: Task, samples: int = SAMPLES) -> tuple[Batch, ...]:
    """Return training samples, or calibration samples where there are none."""
    source = task.train if len(task.train) else task.calibration
    return tuple(islice(source.batches(32, shuffle=0), max(1, samples // 32)))


def unit_scores(
    task: Task, model: nn.Module, groups: Sequence[Group], samples: int = SAMPLES
) -> dict[str, Tensor]:
    """Return the Fisher score of every unit of `groups`, in units of the loss."""
    if not groups:
        return {}
    criterion = Fisher()
    found = collect(model, groups, evidence(task, samples), fields=criterion.needs, loss=task.loss)
    return score(found, criterion)


def space_of(
    task: Task,
    model: nn.Module,
    graph: Graph,
    scores: Mapping[str, Tensor],
    whole: Iterable[str],
    kinds: Iterable[str],
) -> Space:
    """Return the design space of `model`.

    Args:
        task: the data.
        model: a network in floating point.
        graph: its trace.
        scores: of the units that may be cut.
        whole: layers and blocks that stay as they are.
        kinds: kinds of units wanted: `prune`, `factorize`, `drop`.
    """
    layers, kept = anatomy(graph), set(whole)
    units: list[Unit] = _cuts(graph, scores) if CUT in kinds else []
    ranked = rankable(model, task, graph, kept) if RANK in kinds else {}
    blocks = [block for block in graph.blocks if block not in kept] if DROP in kinds else []
    if ranked or blocks:
        units += _whole_layers(task, model, ranked, blocks)
    space = Space(layers, tuple(units))
    count = max(1, len(layers.layers) - 1)
    placed = (
        replace(unit, stage=sum(touched) / len(touched) / count)
        if (touched := space.touched_by(unit))
        else unit
        for unit in space.units
    )
    return Space(layers, tuple(placed))


def _cuts(graph: Graph, scores: Mapping[str, Tensor]) -> list[Unit]:
    """Return a unit for each group with scores; groups that keep equal shares are one."""
    tied = {name: tuple(members) for members in ties(graph) for name in members}
    found = []
    for name in scores:
        members = tied.get(name, (name,))
        if members[0] != name or any(member not in scores for member in members):
            continue
        sizes = {member: len(scores[member]) for member in members}
        size = math.gcd(*sizes.values())
        merged = torch.stack(
            [scores[m].double().cpu().sort().values.reshape(size, -1).sum(1) for m in members]
        )
        levels = levels_of(size)
        harms = falling(merged.sum(0).tolist(), levels)
        found.append(Unit(CUT, name, levels, harms, tuple((m, n // size) for m, n in sizes.items())))
    return found


def rankable(model: nn.Module, task: Task, graph: Graph, kept: set[str]) -> dict[str, tuple[int, ...]]:
    """Return the ranks to try of each layer that is worth factorizing."""
    held = tensors(model)
    total = sum(operation.macs for operation in graph.operations)
    work = {operation.module: operation.macs for operation in graph.operations}
    found: dict[str, tuple[int, ...]] = {}
    for name in candidates(model, task.inputs):
        layer, weight = layer_of(name), held[name]
        if layer in kept or work.get(layer, 0) < _WORTHWHILE * total:
            continue
        rows, columns = len(weight), weight[0].numel()
        largest = (rows * columns - 1) // (rows + columns)
        step = 8 if largest >= 32 else 4 if largest >= 8 else 1
        ranks = {max(step, int(part * largest) // step * step) for part in _RANKS}
        if usable := sorted((rank for rank in ranks if rank <= largest), reverse=True):
            found[layer] = (0, *usable)
    return found


def _whole_layers(
    task: Task, model: nn.Module, ranked: Mapping[str, tuple[int, ...]], blocks: Sequence[str]
) -> list[Unit]:
    r"""Return the units of layers and blocks, with the empirical Fisher of what each level takes away.

    $$h = \frac{1}{2N} \sum_n \langle \partial L_n / \partial w, \Delta w \rangle^2$$

    For a layer $\Delta w$ is what its truncation leaves out; for a block it is the whole branch, taken at its output.
    """
    copied = copy.deepcopy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    held = tensors(copied)
    batches = evidence(task, _FEWER)
    grams = input_moments(copied, [f"{layer}.weight" for layer in ranked], batches, gram=True)
    pairs = {
        layer: factors(
            held[f"{layer}.weight"],
            min(len(w := held[f"{layer}.weight"]), w[0].numel()),
            gram=grams.get(f"{layer}.weight"),
        )
        for layer in ranked
    }
    for layer in ranked:
        held[f"{layer}.weight"].requires_grad_(True)
    effects: dict[str, list[Tensor]] = {name: [] for name in (*ranked, *blocks)}
    leaves = [held[f"{layer}.weight"] for layer in ranked]
    for value, branches in _passes(copied, task, batches, blocks):
        outputs = [after for _, after in branches.values()]
        grads = torch.autograd.grad(value, [*leaves, *outputs], allow_unused=True)
        for layer, grad in zip(ranked, grads, strict=False):
            effects[layer].append(_by_component(pairs[layer], grad))
        for (block, (before, after)), grad in zip(branches.items(), grads[len(leaves) :], strict=True):
            change = torch.zeros(()) if grad is None else (grad * (before - after)).sum()
            effects[block].append(change.detach().double().cpu().reshape(1))
    ranks = [Unit(RANK, layer, ranked[layer], _of_ranks(effects[layer], ranked[layer])) for layer in ranked]
    drops = [Unit(DROP, block, (1, 0), (0.0, _fisher(effects[block]))) for block in blocks if effects[block]]
    return [*ranks, *drops]


def _by_component(pair: tuple[Tensor, Tensor], grad: Tensor | None) -> Tensor:
    """Return the first-order effect of removing each singular component."""
    first, second = pair
    if grad is None:
        return torch.zeros(len(first), dtype=torch.float64)
    return -((second.T @ grad.flatten(1)) * first).sum(1).double().cpu()


def _of_ranks(effects: Sequence[Tensor], ranks: Sequence[int]) -> tuple[float, ...]:
    by_component = torch.stack(list(effects))
    harms, most = [0.0], 0.0
    for rank in ranks[1:]:
        most = max(most, float(by_component[:, rank:].sum(1).square().mean()) / 2)
        harms.append(most)
    return tuple(harms)


def _fisher(effects: Sequence[Tensor]) -> float:
    return float(torch.cat(list(effects)).square().mean()) / 2


def _passes(
    model: nn.Module, task: Task, batches: Sequence[Batch], blocks: Sequence[str]
) -> Iterator[tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]]:
    """Run each sample; give the loss, and the input and output of each block."""
    generator = torch.Generator().manual_seed(0)
    with _watching(model, blocks) as seen:
        for sample in _samples(batches):
            seen.clear()
            output = main_output(call(model, on_device_of(model, sample.inputs)))
            if task.loss is None or sample.target is None:
                yield probe(output, generator), dict(seen)
            else:
                yield task.loss(output, sample.target.to(output.device)), dict(seen)


def _samples(batches: Sequence[Batch]) -> Iterator[Batch]:
    """Give the samples of some batches one by one."""
    for batch in batches:
        for index in range(batch_size(batch.inputs)):
            inputs = map_tensors(lambda tensor, i=index: tensor[i : i + 1], batch.inputs)
            target = None if batch.target is None else batch.target[index : index + 1]
            yield Batch(inputs, target, batch.ids[index : index + 1])


@contextmanager
def _watching(model: nn.Module, blocks: Sequence[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Note input and output of blocks, and make their outputs part of the graph of gradients."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str):
        def note(_module: nn.Module, args: tuple, kwargs: dict, output: object) -> object:
            before = args[0] if args else next(iter(kwargs.values()))
            rest = output[1:] if isinstance(output, tuple) else None
            after = main_output(output)
            after = after if after.requires_grad else after.requires_grad_(True)
            seen[name] = (before.detach(), after)
            return after if rest is None else (after, *rest)

        return note

    handles = [
        model.get_submodule(block).register_forward_hook(hook(block), with_kwargs=True) for block in blocks
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
