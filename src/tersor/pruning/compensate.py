"""Let the weights that stay take over the work of those that went: least squares, layer by layer."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tersor._check import positive
from tersor.analysis.uses import Operation, Use, stored, tensors, use_of, uses, watch
from tersor.errors import DataError, PlanError
from tersor.graph.structure import Graph
from tersor.loading.inputs import Inputs
from tersor.loading.task import Batch
from tersor.planning.plan import Cut, Plan
from tersor.pruning.least_squares import least_squares

#: Rows of one batch that enter a fit; more add time and next to no information.
_ROWS = 4096
#: Bytes of the original's outputs that are held, so that it runs once for all layers.
_HELD = 2**28


def compensate(
    pruned: nn.Module,
    original: nn.Module,
    graph: Graph,
    plan: Plan,
    batches: Iterable[Batch],
    *,
    damping: float = 0.01,
) -> nn.Module:
    """Return a copy of `pruned` whose consumers of cut units are refitted to give the original's outputs.

    See `refit` for the formula. Neither module is changed. Running statistics
    of batch norms are left as they are; re-estimating them afterwards helps more.

    Args:
        pruned: what `apply(original, plan, graph)` made, before any training.
        original: the model before the cut.
        graph: its trace.
        plan: the plan that was applied; only its cuts matter.
        batches: calibration data; labels are not used.
        damping: pull towards the original weights, as a fraction of the mean input energy of a feature.

    Raises:
        PlanError: if the plan takes no inputs away, or `pruned` is not what it gives.
        DataError: if there is no batch.

    Example:
        >>> from tersor.graph.trace import trace
        >>> from tersor.surgery.apply import apply
        >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> net[0].weight.data[1] = 2 * net[0].weight.data[0]
        >>> net[0].bias.data[1] = 2 * net[0].bias.data[0]  # unit 1 is twice unit 0
        >>> data = Batch((torch.randn(64, 2),), None, tuple(range(64)))
        >>> graph, plan = trace(net, data.inputs), Plan((Cut("0", (0, 2, 3)),))
        >>> small = compensate(apply(net, plan, graph).model, net, graph, plan, [data], damping=1e-6)
        >>> torch.allclose(small(*data.inputs), net(*data.inputs), atol=1e-3)
        True
    """
    repaired = copy.deepcopy(pruned)
    held = tensors(repaired)
    with torch.no_grad():
        for name, value in refit(pruned, original, graph, plan, batches, damping=damping).items():
            held[name].copy_(value)
    return repaired


def refit(
    pruned: nn.Module,
    original: nn.Module,
    graph: Graph,
    plan: Plan,
    batches: Iterable[Batch],
    *,
    damping: float = 0.01,
) -> dict[str, Tensor]:
    r"""Return new values for the weights and biases that read cut units, by name.

    For each consumer, in the order of execution, with X its inputs in the pruned model (earlier repairs
    included), Y its outputs in the original model on the same samples, and W_K the weight left by the cut:

    $$W' = W_K + (X^T X + \lambda I)^{-1} X^T (Y - X W_K), \qquad
      \lambda = \mathrm{damping} \cdot \overline{\operatorname{diag}(X^T X)}$$

    With a bias, X and Y are centred and the bias takes the difference of the means.

    Args: as `compensate`.

    Source:
        Frantar and Alistarh, Optimal Brain Compression, NeurIPS 2022, section 3; Hu et al., FASP, 2025,
        equation 6 (restoration of the consumer); An et al., FLAP, AAAI 2024, section 3.3 (bias).
    """
    positive("damping", damping)
    batches = list(batches)
    if not batches:
        raise DataError("There is no calibration batch to refit on. Pass at least one.")
    teacher, student = copy.deepcopy(original).eval(), copy.deepcopy(pruned).eval()
    removed = graph.removed({cut.group: cut.keep for cut in plan.of(Cut)})
    held, changed = tensors(student), dict[str, Tensor]()
    readers = _readers(teacher, batches[0].inputs, graph, removed)
    wanted = _targets(teacher, readers, batches)
    for reader in readers:
        weight = held[reader.use.parameter]
        _check_shape(reader.use.parameter, weight, graph, removed)
        moments = _moments(wanted(reader), student, reader, batches)
        matrix, bias = moments.fit(reader.matrix(weight), damping, centred=bool(reader.use.bias))
        new = {reader.use.parameter: reader.tensor(matrix, weight)}
        if reader.use.bias:
            new[reader.use.bias] = bias.to(weight)
        with torch.no_grad():
            for name, value in new.items():
                held[name].copy_(value)
        changed |= new
    return changed


def _check_shape(name: str, weight: Tensor, graph: Graph, removed: np.ndarray) -> None:
    left = tuple(int(_kept(graph, name, axis, removed).sum()) for axis in range(weight.dim()))
    if tuple(weight.shape) != left:
        raise PlanError(
            f"`pruned` is not what the plan gives: {name!r} has the shape {tuple(weight.shape)}, and the cuts leave "
            f"{left}. Pass the plan that was applied, and its model before any other edit."
        )


@dataclass(frozen=True, slots=True)
class _Reader:
    """A parameter that reads units which went, which of its outputs stay, and how often it runs."""

    use: Use
    outputs: Tensor
    times: int

    def matrix(self, weight: Tensor) -> Float[Tensor, "features outputs"]:
        """Return a weight as the matrix that features are multiplied by."""
        features = math.prod(weight.shape[axis] for axis in self.use.reads)
        return weight.detach().permute(self.use.reads + self.use.writes).reshape(features, -1)

    def tensor(self, matrix: Tensor, weight: Tensor) -> Tensor:
        """Return a matrix in the shape and type of `weight`: the inverse of `matrix`."""
        axes = self.use.reads + self.use.writes
        back = [axes.index(axis) for axis in range(len(axes))]
        return matrix.reshape([weight.shape[axis] for axis in axes]).permute(back).to(weight).contiguous()


def _readers(model: nn.Module, inputs: Inputs, graph: Graph, removed: np.ndarray) -> tuple[_Reader, ...]:
    """Return the contractions with fewer inputs than before, in the order of execution, each parameter once.

    Raises:
        PlanError: if there is none.
    """
    seen = uses(model, inputs)
    fit = {use.parameter: use for use in reversed(seen) if use.inputs is not None}
    # A tied embedding is looked up as well: a refit of the one use would break the other.
    other = {use.parameter for use in seen if use.inputs is None}
    kept = lambda use, axes: [_kept(graph, use.parameter, axis, removed) for axis in axes]
    found = tuple(
        _Reader(
            replace(use, inputs=None, outputs=None),
            torch.from_numpy(_grid(kept(use, use.writes))),
            sum(other.parameter == use.parameter for other in seen),
        )
        for use in reversed(fit.values())
        if use.parameter not in other and not all(stays.all() for stays in kept(use, use.reads))
    )
    if not found:
        raise PlanError("The plan takes no input away from any layer, so there is nothing to refit.")
    return found


def _kept(graph: Graph, name: str, axis: int, removed: np.ndarray) -> np.ndarray:
    return graph.extents[name, axis].kept(removed)


def _grid(stays: Sequence[np.ndarray]) -> np.ndarray:
    """Return which entries of the flattened product of axes stay."""
    whole = np.ones((1,), bool)
    for axis in stays:
        whole = np.logical_and.outer(whole, axis).ravel()
    return whole


@dataclass(frozen=True, slots=True)
class _Moments:
    """Means over rows of x x^T, x y^T, x and y, added up in float64."""

    inputs: Float[Tensor, "features features"]
    cross: Float[Tensor, "features outputs"]
    mean_inputs: Float[Tensor, "features"]
    mean_outputs: Float[Tensor, "outputs"]

    def fit(self, weight: Tensor, damping: float, *, centred: bool) -> tuple[Tensor, Tensor]:
        """Return the weight and bias that map inputs to outputs best, pulled towards `weight`."""
        gram, cross = self.inputs, self.cross
        if centred:
            gram = gram - torch.outer(self.mean_inputs, self.mean_inputs)
            cross = cross - torch.outer(self.mean_inputs, self.mean_outputs)
        fitted = least_squares(gram, cross, weight.double().to(gram.device), damping)
        return fitted, self.mean_outputs - self.mean_inputs @ fitted


#: What a reader wrote in the original on each batch, each time that it ran.
_Written: TypeAlias = list[list[Tensor]]


def _targets(
    teacher: nn.Module, readers: Sequence[_Reader], batches: Sequence[Batch]
) -> Callable[[_Reader], _Written]:
    """Return what gives the outputs of a reader in the original: held from one pass for all where there is room."""
    first = _outputs(teacher, readers, batches[0].inputs)
    held = sum(y.nelement() * y.element_size() for ys in first.values() for y in ys) * len(batches)
    if held > _HELD:
        return lambda reader: [
            _outputs(teacher, (reader,), batch.inputs)[reader.use.parameter] for batch in batches
        ]
    seen = [first, *(_outputs(teacher, readers, batch.inputs) for batch in batches[1:])]
    return lambda reader: [found[reader.use.parameter] for found in seen]


def _outputs(model: nn.Module, readers: Sequence[_Reader], inputs: Inputs) -> dict[str, list[Tensor]]:
    """Return what readers write: of the outputs that stay, the rows that enter a fit."""
    stay = {reader.use.parameter: reader.outputs for reader in readers}

    def pick(use: Use) -> Callable[[], Tensor] | None:
        make = use.outputs
        # Copied at once: an activation in place may write over it.
        return make and (lambda: (y := _rows(make()))[:, stay[use.parameter].to(y.device)].float())

    return _seen(model, readers, inputs, pick)


def _rows(values: Tensor) -> Tensor:
    """Return every n-th row, the same ones of inputs and outputs."""
    return values[:: -(-len(values) // _ROWS)]


def _moments(written: _Written, student: nn.Module, reader: _Reader, batches: Iterable[Batch]) -> _Moments:
    totals: list[Tensor] | None = None
    rows = 0
    for batch, targets in zip(batches, written, strict=True):
        inputs = _seen(student, (reader,), batch.inputs, lambda use: use.inputs)[reader.use.parameter]
        for x, y in zip(inputs, targets, strict=True):
            x = _rows(x).float()
            new = [part.double() for part in (x.T @ x, x.T @ y, x.sum(0), y.sum(0))]
            totals = new if totals is None else [a + b for a, b in zip(totals, new, strict=True)]
            rows += len(x)
    assert totals is not None
    return _Moments(*(total / rows for total in totals))


class _Enough(Exception):
    """Ends a forward pass once everything wanted of it was seen."""


def _seen(
    model: nn.Module,
    readers: Sequence[_Reader],
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
            raise _Enough

    with suppress(_Enough):
        watch(model, inputs, visit)
    return found
