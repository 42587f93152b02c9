"""Collect the evidence that pruning criteria score with, on calibration data."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tersor._check import one_of
from tersor.analysis.evidence import FIELDS, Evidence, Part
from tersor.analysis.layout import Layout, layouts, signature
from tersor.analysis.uses import Operation, first_names, on_device_of, stored, tensors, use_of, uses, watch
from tersor.errors import DataError
from tersor.graph.groups import Group
from tersor.loading.inputs import Inputs, batch_size, call, main_output, map_tensors
from tersor.loading.task import Batch

Loss = Callable[[Tensor, Tensor], Tensor]

_GRADIENT_FIELDS = {"saliency", "curvature"}
_INPUT_FIELDS = {"moment", "gram"}


def collect(
    model: nn.Module,
    groups: Sequence[Group],
    batches: Iterable[Batch],
    *,
    fields: Iterable[str] = (),
    loss: Loss | None = None,
) -> dict[str, Evidence]:
    """Return the evidence about every prunable group, by its name.

    Runs a copy of `model` in eval mode; the model itself is not changed. With
    `saliency` or `curvature` every sample is one backward pass, so that effects
    of opposite sign in different samples do not cancel.

    Args:
        model: the network that the groups were found in.
        groups: the groups; those that are not prunable are left out.
        batches: calibration data. Without fields only the first batch is used, to see which operations
            use which parameter.
        fields: a subset of `FIELDS`; criteria name theirs in `needs`.
        loss: scalar loss of (main output, target), for the gradient fields. Without one they are taken of
            `probe`, which needs no labels: effects are then changes of the outputs, not of a loss.

    Raises:
        ArgumentError: if a field is unknown.
        DataError: if there is no batch, or `loss` is given and a batch has no target.

    Example:
        >>> from tersor.graph.groups import Group, Member
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> units = (0, 1, 2)
        >>> hidden = Group("0", "hidden", 3, (Member("0.weight", 0, units), Member("2.weight", 1, units)))
        >>> batch = Batch((torch.ones(4, 2),), torch.zeros(4, 1), (0, 1, 2, 3))
        >>> evidence = collect(net, [hidden], [batch], fields={"saliency"}, loss=nn.functional.mse_loss)
        >>> [part.role for part in evidence["0"].parts]
        ['writes', 'reads']
        >>> evidence["0"].parts[1].saliency.shape
        torch.Size([4, 3])
    """
    wanted = frozenset(one_of("fields", field, FIELDS) for field in fields)
    batches = list(batches)
    _check(wanted, batches, loss)
    # A copy, because gradients are taken in eval mode and for frozen parameters too.
    copied = copy.deepcopy(model).eval()
    for tensor in copied.parameters():
        tensor.requires_grad_(tensor.is_floating_point())
    held, first = tensors(copied), first_names(copied)
    seen = [replace(use, inputs=None, outputs=None) for use in uses(copied, batches[0].inputs)]
    found = {group.name: layouts(group, held, first, seen) for group in groups if group.prunable}
    kinds = {group.name: signature(group, found[group.name]) for group in groups if group.prunable}
    parts = {
        name: [layout.part(held[layout.member.tensor]) for layout in members]
        for name, members in found.items()
    }
    if wanted & _INPUT_FIELDS:
        _add_inputs(copied, found, parts, batches, "gram" in wanted)
    if wanted & _GRADIENT_FIELDS:
        _add_gradients(copied, found, parts, batches, loss, squared="curvature" in wanted)
    sizes = {group.name: group.size for group in groups}
    return {name: Evidence(name, sizes[name], tuple(parts[name]), wanted, kinds[name]) for name in found}


def _check(wanted: frozenset[str], batches: Sequence[Batch], loss: Loss | None) -> None:
    if not batches:
        raise DataError("There is no calibration batch. Pass at least one, with labels for gradient fields.")
    if loss is not None and wanted & _GRADIENT_FIELDS and any(batch.target is None for batch in batches):
        raise DataError(
            "This loss needs targets, and a calibration batch has none. Leave `loss` out to do without."
        )


def probe(outputs: Tensor, generator: torch.Generator) -> Tensor:
    r"""Return the outputs along a random direction, $v^T f(x)$ with $v \sim N(0, I)$.

    Its squared first-order effects are in expectation the squared change of the outputs,
    $E_v (v^T J w)^2 = \|J w\|^2$, so that second-order criteria measure fidelity without labels.
    """
    direction = torch.randn(outputs.shape, generator=generator, dtype=torch.float32)
    return (outputs * direction.to(outputs)).sum()


def _add_inputs(
    model: nn.Module,
    found: Mapping[str, Sequence[Layout]],
    parts: Mapping[str, list[Part]],
    batches: Sequence[Batch],
    gram: bool,
) -> None:
    readers = {layout.parameter for members in found.values() for layout in members if layout.role == "reads"}
    totals = input_moments(model, readers, batches, gram=gram)
    for name, members in found.items():
        for index, layout in enumerate(members):
            if layout.role == "reads" and layout.parameter in totals:
                parts[name][index] = _with_inputs(parts[name][index], layout, totals[layout.parameter], gram)


def _with_inputs(part: Part, layout: Layout, total: Tensor, gram: bool) -> Part:
    diagonal = total.diagonal() if gram else total
    moment = diagonal[layout.order.to(diagonal.device)].reshape(layout.size, layout.width)
    return replace(part, moment=moment, gram=layout.features(total) if gram else None)


def input_moments(
    model: nn.Module, parameters: Iterable[str], batches: Iterable[Batch], *, gram: bool
) -> dict[str, Tensor]:
    """Return E[x x^T] (with `gram`) or E[x^2] of the features that each parameter is contracted with.

    Args:
        model: run in the mode that it is in, without gradients.
        parameters: first names of parameters; those whose features are not one matrix are left out.
        batches: calibration data.
        gram: whole matrix (features, features) instead of its diagonal.
    """
    wanted, known = set(parameters), stored(model)
    totals: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def visit(operation: Operation) -> None:
        use = use_of(operation, known)
        if use is None or use.inputs is None or use.parameter not in wanted:
            return
        data = use.inputs().float()
        new = data.T @ data if gram else data.square().sum(0)
        totals[use.parameter] = totals[use.parameter] + new if use.parameter in totals else new
        counts[use.parameter] = counts.get(use.parameter, 0) + len(data)

    for batch in batches:
        watch(model, batch.inputs, visit)
    return {name: total / counts[name] for name, total in totals.items()}


def _add_gradients(
    model: nn.Module,
    found: Mapping[str, Sequence[Layout]],
    parts: Mapping[str, list[Part]],
    batches: Sequence[Batch],
    loss: Loss | None,
    *,
    squared: bool,
) -> None:
    held = {name: tensor for name, tensor in stored(model).values() if tensor.requires_grad}
    places = [
        (name, index, layout)
        for name, members in found.items()
        for index, layout in enumerate(members)
        if layout.parameter in held and (layout.role == "reads" or not _is_read(members))
    ]
    leaves = {layout.parameter: held[layout.parameter] for _, _, layout in places}
    if not leaves:
        return
    effects: list[list[Tensor]] = [[] for _ in places]
    squares: list[list[Tensor]] = [[] for _ in places]
    for gradients in _sample_gradients(model, leaves, batches, loss):
        products = {name: _wide(leaf.detach() * gradients[name]) for name, leaf in leaves.items()}
        for index, (_, _, layout) in enumerate(places):
            effects[index].append(layout.totals(products[layout.parameter]))
            if squared:
                squares[index].append(layout.totals(products[layout.parameter].square()))
    for (name, index, _), effect, square in zip(places, effects, squares, strict=True):
        parts[name][index] = replace(
            parts[name][index],
            saliency=torch.stack(effect),
            curvature=torch.stack(square).mean(0) if square else None,
        )


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _is_read(members: Sequence[Layout]) -> bool:
    return any(layout.role == "reads" for layout in members)


def _sample_gradients(
    model: nn.Module, leaves: Mapping[str, Tensor], batches: Sequence[Batch], loss: Loss | None
) -> Iterator[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for batch in batches:
        for sample in range(batch_size(batch.inputs)):
            inputs, target = _one(batch, slice(sample, sample + 1))
            output = main_output(call(model, on_device_of(model, inputs)))
            value = (
                probe(output, generator)
                if loss is None or target is None
                else loss(output, target.to(output.device))
            )
            grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            yield {
                name: torch.zeros_like(tensor) if grad is None else grad
                for (name, tensor), grad in zip(leaves.items(), grads, strict=True)
            }


def _one(batch: Batch, sample: slice) -> tuple[Inputs, Tensor | None]:
    inputs = map_tensors(lambda tensor: tensor[sample], batch.inputs)
    return inputs, None if batch.target is None else batch.target[sample]
