"""Trace a model: one forward pass becomes a Graph."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from tersor.errors import ArgumentError, ModelError, TersorError
from tersor.graph.assembly import assemble
from tersor.graph.equations import IntegerMode
from tersor.graph.integers import Observed, Size, leaves, tag_attributes
from tersor.graph.labels import Labels, is_float, tensors_of
from tersor.graph.modes import ParameterChanged, Recorder, fake_replica, on_meta, plain_attention, replica
from tersor.graph.siblings import follow_siblings
from tersor.graph.structure import Graph
from tersor.loading.inputs import Inputs, as_inputs, call, map_tensors
from tersor.loading.onnx.graph_model import refuse_graph

#: Outputs of models that return many tensors, in the order of preference.
MAIN_OUTPUTS = (
    "logits", "last_hidden_state", "pred_boxes", "predicted_depth", "prediction_logits", "reconstruction",
    "pooler_output", "out",
)  # fmt: skip


def trace(model: nn.Module, inputs: Inputs) -> Graph:
    """Run one forward pass and return its operations and groups; the model is not changed.

    The pass runs eagerly on a copy of the module tree that shares the parameters, in evaluation mode and
    without gradients. Any model that runs is accepted; an operation without a rule freezes the axes that
    it touches.

    Args:
        model: the network. On the meta device nothing is computed and no memory is used.
        inputs: example inputs, as small as the model allows: a tensor, a tuple, or a mapping of names.

    Returns:
        The Graph: groups, operations and what the code says about sizes.

    Raises:
        ArgumentError: if `model` is not a module.
        ModelError: if it is an ONNX graph, the forward pass fails, or a hook of the model calls this function in turn.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> graph = trace(model, (torch.zeros(1, 4),))
        >>> [(group.name, group.kind, group.size) for group in graph.groups if group.prunable]
        [('0', 'hidden', 8)]
        >>> graph.macs(), graph.macs({"0": (0, 3)})
        (48, 12)
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"`model` must be a torch.nn.Module, got {type(model).__name__}.")
    refuse_graph(model, "Pruning")
    if any(isinstance(mode, Recorder) for mode in _get_current_dispatch_mode_stack()):
        raise ModelError(
            "A forward hook of the model asks for a trace while the model is being traced. Remove the hook, or ask "
            "outside of the forward pass."
        )
    inputs = as_inputs(inputs)
    if on_meta(model):
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = map_tensors(mode.from_tensor, inputs)
            return _trace(fake_replica(model, mode), fakes, guard=False)
    try:
        return _trace(replica(model, share=True), inputs)
    except ParameterChanged:
        return _trace(replica(model, share=False), inputs, guard=False)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer once, by its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def outputs_of(value: Any) -> list[Tensor]:
    """Return the output tensors whose shape is the contract of the model: not caches, not hidden states."""
    if isinstance(value, Mapping):
        main = [value[key] for key in MAIN_OUTPUTS if isinstance(value.get(key), Tensor)]
        if main:
            return main
    return [tensor for tensor in tensors_of(value) if is_float(tensor)]


def _trace(model: nn.Module, inputs: Inputs, guard: bool = True) -> Graph:
    labels, seen, tensors = Labels(), Observed(), named_tensors(model)
    for tensor in tensors.values():
        axes = (
            [labels.fresh(size) for size in tensor.shape] if is_float(tensor) else [[] for _ in tensor.shape]
        )
        labels.name(tensor, axes)
    tag_attributes(model, seen)
    owned = {p.untyped_storage()._cdata for p in model.parameters()} if guard else set()
    recorder, integers = Recorder(labels, owned), IntegerMode(labels, seen)
    recorder.watch(model)
    outputs = _run(model, inputs, integers, recorder)
    for tensor in outputs_of(outputs):
        labels.freeze_tensor(tensor, "is an output of the model")
    _freeze_values(labels, integers, seen)
    _freeze_scripts(labels, model)
    follow_siblings(labels, recorder.touched, tensors, dict(model.named_modules()))
    _freeze_unused(labels, recorder, tensors)
    return assemble(labels, recorder, integers.found, seen, tensors, inputs, model)


def _run(model: nn.Module, inputs: Inputs, integers: IntegerMode, recorder: Recorder) -> Any:
    state = torch.get_rng_state()
    try:
        with torch.no_grad(), plain_attention(), integers, recorder:
            return call(model, inputs)
    except (ParameterChanged, TersorError):
        raise
    except Exception as error:
        raise ModelError(
            f"The model could not run on the example inputs ({_described(inputs)}): {type(error).__name__}: {error}. "
            "Call the model with these inputs yourself first."
        ) from error
    finally:
        torch.set_rng_state(state)


def _described(inputs: Inputs) -> str:
    """Return the inputs as types and shapes."""
    named = inputs if isinstance(inputs, dict) else dict(enumerate(inputs))
    told = {
        key: f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if isinstance(value, Tensor)
        else type(value).__name__
        for key, value in named.items()
    }
    return (
        ", ".join(f"{key}: {text}" if isinstance(key, str) else text for key, text in told.items()) or "none"
    )


def _freeze_values(labels: Labels, integers: IntegerMode, seen: Observed) -> None:
    """Freeze axes whose size enters the computation as a number, as in a division by its root."""
    used = {leaf for value in seen.values for leaf in leaves(value)}
    for leaf in used:
        if isinstance(leaf, Size):
            labels.freeze(leaf.axis, "its size enters the computation as a number")
    alone = {equation.expression for equation in integers.found.equations}
    for equation in integers.found.equations:
        # Where a leaf sizes an axis of its own, that one is frozen; products with other sizes may still change.
        read = [leaf for leaf in leaves(equation.expression) if leaf in used]
        if any(leaf == equation.expression or leaf not in alone for leaf in read):
            labels.freeze(equation.axis, "its size enters the computation as a number")
    for attribute, size in seen.comparisons():
        if attribute in used:
            labels.freeze(size.axis, "its size enters the computation as a number")


def _freeze_scripts(labels: Labels, model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            for tensor in (*module.parameters(), *module.buffers()):
                labels.freeze_tensor(tensor, "belongs to a scripted module, which cannot be rebuilt")


def _freeze_unused(labels: Labels, recorder: Recorder, tensors: Mapping[str, Tensor]) -> None:
    for tensor in tensors.values():
        if id(tensor) not in recorder.touched:
            labels.freeze_tensor(tensor, "was not used in the forward pass")
