"""Let the weights that stay take over the work of those that went: least squares, layer by layer."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tersor._check import positive
from tersor.analysis.uses import Operation, stored, tensors, use_of, watch
from tersor.errors import DataError, PlanError
from tersor.graph.structure import Graph
from tersor.loading.inputs import alike, joined
from tersor.loading.task import Batch
from tersor.planning.plan import Cut, Plan
from tersor.pruning.least_squares import least_squares
from tersor.pruning.readers import ROWS, Enough, Reader, Samples, kept, readers_of, room


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
    held = tensors(student)
    readers = readers_of(teacher, batches[0].inputs, graph, removed)
    for reader in readers:
        _check_shape(reader.use.parameter, held[reader.use.parameter], graph, removed)
    chunks, together = room(teacher, readers, held, batches)
    parts = [batch.inputs for batch in batches]
    together = together and alike(parts)
    samples = Samples([joined(parts)], ROWS * len(parts)) if together else Samples(parts, ROWS)
    repairs = _Repairs(student, held, samples, damping)
    run = repairs.in_passing if together else repairs.one_by_one
    for chunk in chunks:
        run(chunk, samples.written(teacher, chunk))
    return repairs.changed


@dataclass(frozen=True, slots=True)
class _Repairs:
    """The repairs of one network.

    Attributes:
        student: the network.
        held: its tensors, by name.
        samples: what it runs on.
        damping: as `compensate`.
        changed: the new values so far, by name.
    """

    student: nn.Module
    held: dict[str, Tensor]
    samples: Samples
    damping: float
    changed: dict[str, Tensor] = field(default_factory=dict)

    def one_by_one(self, readers: Sequence[Reader], written: Mapping[str, Sequence[Tensor]]) -> None:
        """Repair each reader after passes up to it: what was repaired before changes what it reads."""
        for reader in readers:
            self._repair(reader, self.samples.read(self.student, reader), written[reader.use.parameter])

    def in_passing(self, readers: Sequence[Reader], written: Mapping[str, Sequence[Tensor]]) -> None:
        """Repair readers in one pass of all samples: each before it runs, on what the repaired ones gave it."""
        (inputs,) = self.samples.parts
        known, waiting = stored(self.student), {reader.use.parameter: reader for reader in readers}

        def visit(operation: Operation) -> object:
            use = use_of(operation, known)
            if use is None or use.inputs is None or use.parameter not in waiting:
                return None
            read = self.samples.rows(use.inputs())
            self._repair(waiting.pop(use.parameter), [read], written[use.parameter])
            if not waiting:
                raise Enough
            return operation.function(*operation.args, **operation.kwargs)

        with suppress(Enough):
            watch(self.student, inputs, visit)

    def _repair(self, reader: Reader, read: Sequence[Tensor], written: Sequence[Tensor]) -> None:
        """Fit a reader to what it read and should write, and put the values in."""
        weight, bias = self.held[reader.use.parameter], reader.use.bias
        matrix, shift = _moments(read, written).fit(reader.matrix(weight), self.damping, centred=bool(bias))
        new = {reader.use.parameter: reader.tensor(matrix, weight)} | (
            {bias: shift.to(weight)} if bias else {}
        )
        with torch.no_grad():
            for name, value in new.items():
                self.held[name].copy_(value)
        self.changed.update(new)


def _check_shape(name: str, weight: Tensor, graph: Graph, removed: np.ndarray) -> None:
    left = tuple(int(kept(graph, name, axis, removed).sum()) for axis in range(weight.dim()))
    if tuple(weight.shape) != left:
        raise PlanError(
            f"`pruned` is not what the plan gives: {name!r} has the shape {tuple(weight.shape)}, and the cuts leave "
            f"{left}. Pass the plan that was applied, and its model before any other edit."
        )


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


def _moments(read: Sequence[Tensor], written: Sequence[Tensor]) -> _Moments:
    totals: list[Tensor] | None = None
    rows = 0
    for inputs, outputs in zip(read, written, strict=True):
        for x, y in zip(inputs.split(ROWS), outputs.split(ROWS), strict=True):
            x = x.float()
            new = [part.double() for part in (x.T @ x, x.T @ y, x.sum(0), y.sum(0))]
            totals = new if totals is None else [a + b for a, b in zip(totals, new, strict=True)]
            rows += len(x)
    assert totals is not None
    return _Moments(*(total / rows for total in totals))
