"""The layers that read what was cut, and what they wrote in the original."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tersor.analysis.uses import Operation, Use, stored, use_of, uses, watch
from tersor.errors import PlanError
from tersor.graph.structure import Graph
from tersor.loading.inputs import Inputs
from tersor.loading.task import Batch

#: Rows of one batch that enter a fit; more add time and next to no information.
ROWS = 4096
#: Bytes of the original's outputs that are held at once, so that a pass of it serves many layers; and of the inputs of
#: one layer on all samples together, so that one pass of the smaller model repairs all.
HELD = 2**28


@dataclass(frozen=True, slots=True)
class Reader:
    """A parameter that reads units which went, which of its outputs stay, and how often it runs."""

    use: Use
    outputs: Tensor
    times: int

    def features(self, weight: Tensor) -> int:
        """Return how many numbers the rows have that it reads."""
        return math.prod(weight.shape[axis] for axis in self.use.reads)

    def matrix(self, weight: Tensor) -> Float[Tensor, "features outputs"]:
        """Return a weight as the matrix that features are multiplied by."""
        return weight.detach().permute(self.use.reads + self.use.writes).reshape(self.features(weight), -1)

    def tensor(self, matrix: Tensor, weight: Tensor) -> Tensor:
        """Return a matrix in the shape and type of `weight`: the inverse of `matrix`."""
        axes = self.use.reads + self.use.writes
        back = [axes.index(axis) for axis in range(len(axes))]
        return matrix.reshape([weight.shape[axis] for axis in axes]).permute(back).to(weight).contiguous()


def readers_of(model: nn.Module, inputs: Inputs, graph: Graph, removed: np.ndarray) -> tuple[Reader, ...]:
    """Return the contractions with fewer inputs than before, in the order of execution, each parameter once.

    Raises:
        PlanError: if there is none.
    """
    ran = uses(model, inputs)
    fit = {use.parameter: use for use in reversed(ran) if use.inputs is not None}
    # A tied embedding is looked up as well: a refit of the one use would break the other.
    other = {use.parameter for use in ran if use.inputs is None}
    stay = lambda use, axes: [kept(graph, use.parameter, axis, removed) for axis in axes]
    found = tuple(
        Reader(
            replace(use, inputs=None, outputs=None),
            torch.from_numpy(_grid(stay(use, use.writes))),
            sum(other.parameter == use.parameter for other in ran),
        )
        for use in reversed(fit.values())
        if use.parameter not in other and not all(stays.all() for stays in stay(use, use.reads))
    )
    if not found:
        raise PlanError("The plan takes no input away from any layer, so there is nothing to refit.")
    return found


def kept(graph: Graph, name: str, axis: int, removed: np.ndarray) -> np.ndarray:
    """Return which entries of an axis of a tensor stay."""
    return graph.extents[name, axis].kept(removed)


def _grid(stays: Sequence[np.ndarray]) -> np.ndarray:
    """Return which entries of the flattened product of axes stay."""
    whole = np.ones((1,), bool)
    for axis in stays:
        whole = np.logical_and.outer(whole, axis).ravel()
    return whole


class Enough(Exception):
    """Ends a forward pass once everything wanted of it was seen."""


def seen(
    model: nn.Module,
    readers: Sequence[Reader],
    inputs: Inputs,
    pick: Callable[[Use], Callable[[], Tensor] | None],
) -> dict[str, list[Tensor]]:
    """Return what is picked of each run of some readers, by parameter, from a pass up to the last of them."""
    known, times = stored(model), sum(reader.times for reader in readers)
    found: dict[str, list[Tensor]] = {reader.use.parameter: [] for reader in readers}

    def visit(operation: Operation) -> None:
        use = use_of(operation, known)
        make = pick(use) if use is not None and use.parameter in found else None
        if make is not None and use is not None:
            found[use.parameter].append(make())
        if sum(map(len, found.values())) == times:
            raise Enough

    with suppress(Enough):
        watch(model, inputs, visit)
    return found


def room(
    teacher: nn.Module, readers: Sequence[Reader], held: dict[str, Tensor], batches: Sequence[Batch]
) -> tuple[list[list[Reader]], bool]:
    """Return the readers in parts whose outputs can be held, and whether all samples fit one pass."""
    count = lambda use: use.outputs and (lambda: torch.tensor(len(use.outputs())))
    rows = seen(teacher, readers, batches[0].inputs, count)
    chunks, left, widest = list[list[Reader]](), -1, 0
    for reader in readers:
        weight, runs = held[reader.use.parameter], [int(run) for run in rows[reader.use.parameter]]
        outputs = weight.numel() // reader.features(weight)
        size = 4 * len(batches) * outputs * sum(min(run, ROWS) for run in runs)
        widest = max(widest, 4 * len(batches) * reader.features(weight) * max(runs))
        if size > left:
            chunks, left = [*chunks, []], HELD
        chunks[-1].append(reader)
        left -= size
    return chunks, widest <= HELD and all(reader.times == 1 for reader in readers)


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples that layers are refitted on.

    Attributes:
        parts: what a model is called with, once for each.
        most: rows of one part that enter a fit.
    """

    parts: Sequence[Inputs]
    most: int

    def rows(self, values: Tensor) -> Tensor:
        """Return every n-th row, the same ones of inputs and outputs."""
        return values[:: -(-len(values) // self.most)]

    def read(self, model: nn.Module, reader: Reader) -> list[Tensor]:
        """Return what a layer reads in `model`, of every run."""
        pick = lambda use: use.inputs and (lambda: self.rows(use.inputs()))
        passes = (seen(model, (reader,), part, pick) for part in self.parts)
        return [run for found in passes for run in found[reader.use.parameter]]

    def written(self, model: nn.Module, readers: Sequence[Reader]) -> dict[str, list[Tensor]]:
        """Return what layers write in `model`, of every run, by parameter: of the outputs that stay."""
        stay = {reader.use.parameter: reader.outputs for reader in readers}

        def pick(use: Use) -> Callable[[], Tensor] | None:
            make = use.outputs
            # Copied at once: an activation in place may write over it.
            return make and (lambda: (y := self.rows(make()))[:, stay[use.parameter].to(y.device)].float())

        passes = [seen(model, readers, part, pick) for part in self.parts]
        return {name: [run for found in passes for run in found[name]] for name in stay}
