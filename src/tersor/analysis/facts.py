"""What a model costs: parameters, multiply-adds and bytes, for each site and whole."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, sdpa_flop_count
from torch.utils.module_tracker import ModuleTracker

from tersor.analysis.graph_costs import costs_of, parameters_of
from tersor.analysis.uses import Operation, stored, tensors, use_of, watch
from tersor.loading.inputs import Inputs, batch_size
from tersor.loading.onnx.graph_model import GraphModel

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Site:
    """One layer or operation that costs something.

    Attributes:
        name: path of the parameter's module; of the calling module where no parameter takes part.
        operation: `convolution`, `addmm`, ...
        parameter: name of the parameter that it multiplies by; empty if none.
        macs: multiply-adds per sample.
        bytes: bytes per sample read and written, every operand once: what memory must move without a cache.
    """

    name: str
    operation: str
    parameter: str
    macs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Facts:
    """The costs of one forward pass.

    Attributes:
        parameters: number of parameters; tied ones count once.
        parameter_bytes: bytes of the parameters and buffers.
        macs: multiply-adds per sample.
        bytes: bytes per sample read and written by all operations.
        sites: where they arise, in order of execution.
    """

    parameters: int
    parameter_bytes: int
    macs: int
    bytes: int
    sites: tuple[Site, ...]

    def by_site(self) -> dict[str, int]:
        """Return the multiply-adds per sample of each site name."""
        total: dict[str, int] = defaultdict(int)
        for site in self.sites:
            total[site.name] += site.macs
        return dict(total)


def facts(model: nn.Module, inputs: Inputs) -> Facts:
    """Count what one forward pass of `model` costs.

    Multiply-adds are those of matrix products, convolutions, attention and
    recurrent layers (PyTorch's own formulas, halved); element-wise work counts
    in `bytes` only. The model is not changed.

    Args:
        model: any module; run once in eval mode, without gradients.
        inputs: example inputs, batch first; everything is divided by their batch size.

    Returns:
        Costs per sample.

    Example:
        >>> counted = facts(nn.Linear(3, 4), (torch.zeros(2, 3),))
        >>> counted.parameters, counted.macs
        (16, 12)
    """
    if isinstance(model, GraphModel):
        return _of_graph(model, inputs)
    known = stored(model)
    sites: list[Site] = []
    samples = batch_size(inputs)
    modes = {module: module.training for module in model.modules()}
    tracker = ModuleTracker()

    def visit(operation: Operation) -> None:
        if _is_view(operation.function):
            return
        use = use_of(operation, known)
        parameter = use.parameter if use else ""
        caller = min(tracker.parents, key=lambda path: -len(path), default="").partition(".")[2]
        name = parameter.rpartition(".")[0] if parameter else caller
        kind = operation.function.overloadpacket.__name__
        sites.append(Site(name, kind, parameter, _macs(operation) // samples, _moved(operation) // samples))

    model.eval()
    try:
        with tracker:
            watch(model, inputs, visit)
    finally:
        for module, mode in modes.items():
            module.training = mode
    held = {id(tensor): tensor for tensor in tensors(model).values()}
    return Facts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        parameter_bytes=sum(t.numel() * t.element_size() for t in held.values()),
        macs=sum(site.macs for site in sites),
        bytes=sum(site.bytes for site in sites),
        sites=tuple(site for site in sites if site.bytes),
    )


def _of_graph(model: GraphModel, inputs: Inputs) -> Facts:
    costs = costs_of(model, inputs)
    return Facts(
        parameters=parameters_of(model),
        parameter_bytes=model.content.numel(),
        macs=sum(cost.macs for cost in costs),
        bytes=sum(cost.bytes for cost in costs),
        sites=tuple(Site(*cost) for cost in costs if cost.bytes),
    )


def _is_view(function: Any) -> bool:
    aliases = (result.alias_info for result in function._schema.returns)
    return any(alias is not None and not alias.is_write for alias in aliases)


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, list | tuple):
        return [tensor for value in values for tensor in _tensors(value)]
    return []


def _moved(operation: Operation) -> int:
    operands = _tensors((operation.args, list(operation.kwargs.values()), operation.output))
    return sum(tensor.numel() * tensor.element_size() for tensor in operands)


def _recurrent_macs(args: tuple[Any, ...]) -> int:
    steps = math.prod(args[0].shape[:2])
    return steps * sum(weight.numel() for weight in args[1:3])


#: Multiply-adds of operations that PyTorch's own table leaves out.
_EXTRA: dict[Any, Callable[[tuple[Any, ...]], int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: lambda a: (
        sdpa_flop_count(*(t.shape for t in a[:3])) // 2
    ),
    aten._scaled_dot_product_fused_attention_overrideable: lambda a: (
        sdpa_flop_count(*(t.shape for t in a[:3])) // 2
    ),
    aten.linear: lambda a: math.prod(a[0].shape) * a[1].shape[0],
    aten.mkldnn_rnn_layer: _recurrent_macs,
}


def _macs(operation: Operation) -> int:
    packet = operation.function.overloadpacket
    if packet in _EXTRA:
        return int(_EXTRA[packet](operation.args))
    formula = flop_registry.get(packet)
    return int(formula(*operation.args, **operation.kwargs, out_val=operation.output)) // 2 if formula else 0


def site_macs(counted: Facts) -> Mapping[str, int]:
    """Return the multiply-adds per sample of each parameter that takes part in any."""
    total: dict[str, int] = defaultdict(int)
    for site in counted.sites:
        if site.parameter and site.macs:
            total[site.parameter] += site.macs
    return dict(total)
