"""A flow of Keras calls becomes a torch module: plain torch layers, with the axes in torch's order between them.

Keras keeps the channels last, torch's convolutions want them on axis 1. Each tensor is known in either order and
turned only where the next layer needs the other one, so that a convolutional network turns its input once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from tersor.errors import ModelError
from tersor.loading.keras.activations import activation
from tersor.loading.keras.flow import Flow, Ref, Step, Value, identifier
from tersor.loading.keras.layers import WEIGHTED, channels_last_axis
from tersor.loading.keras.operations import BROADCAST, BY_AXIS, ELEMENTWISE, MERGING, Emit
from tersor.loading.keras.plain_layers import PLAIN
from tersor.loading.keras.rules import Rule
from tersor.loading.keras.sequences import SEQUENCES
from tersor.loading.pieces import MaskedMean, Reshape

#: Every layer that becomes modules, by the name of its class.
LAYERS: dict[str, Rule] = WEIGHTED | PLAIN | SEQUENCES
#: Layers of Keras that become functions.
_LAYER_FUNCTIONS = {**MERGING, "Concatenate": BY_AXIS["Concatenate"], "RepeatVector": BY_AXIS["RepeatVector"]}
_OPERATIONS = ELEMENTWISE | BROADCAST | BY_AXIS
#: Arguments that say nothing about a trained network's answers.
_IGNORED = ("training", "name", "dtype")
#: Layers that skip the positions that a mask (of `Embedding(mask_zero=True)`, say) leaves out; others pass it on.
_MASKED = ("LSTM", "GRU", "Bidirectional", "MultiHeadAttention", "Softmax", "GlobalAveragePooling1D")


def known_layers() -> tuple[str, ...]:
    """Return the names of all layers that are converted."""
    return tuple(sorted({*LAYERS, *_LAYER_FUNCTIONS, "InputLayer"}))


def is_leaf(operation: Any) -> bool:
    """Whether a Keras layer or operation is converted as a whole; others are looked into.

    Raises:
        ModelError: if it is Keras's own, and neither known nor made of others.
    """
    kind, home = type(operation).__name__, type(operation).__module__
    if not home.startswith("keras."):
        return False
    if kind in ("Functional", "Sequential"):
        return False
    layer = ".layers." in home
    if not layer and ".ops." not in home:
        return False
    if layer and kind not in LAYERS and kind not in _LAYER_FUNCTIONS:
        raise ModelError(
            f"The Keras layer {operation.name!r} is a {kind}, which is not converted. "
            f"Converted are {', '.join(known_layers())}."
        )
    if not layer and kind not in _OPERATIONS and kind != "Reshape":
        raise ModelError(
            f"keras.ops: the operation {kind} ({operation.name!r}) is not converted. "
            f"Converted are {', '.join(sorted({*_OPERATIONS, 'Reshape'}))}."
        )
    return True


def to_torch(flow: Flow) -> fx.GraphModule:
    """Return a torch module that computes what the flow does.

    Raises:
        ModelError: naming the layer that has no counterpart.
    """
    builder = _Builder(flow)
    for name, number in flow.inputs:
        builder.put(number, builder.graph.placeholder(name))
    for step in flow.steps:
        try:
            builder.step(step)
        except ModelError as cause:
            kind = type(step.operation).__name__
            raise ModelError(f"The Keras {kind} {step.path!r} cannot be converted: {cause}.") from cause
    builder.graph.output(builder.result(flow.outputs))
    module = fx.GraphModule(builder.root, builder.graph, class_name=flow.name).eval()
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module


@dataclass(slots=True)
class _Builder:
    """A graph in the making, with every tensor in the orders of axes in which it exists."""

    flow: Flow
    graph: fx.Graph = field(default_factory=fx.Graph)
    root: dict[str, Any] = field(default_factory=dict)
    forms: dict[tuple[int, bool], fx.Node] = field(default_factory=dict)
    made: dict[str, list[str]] = field(default_factory=dict)

    def put(self, number: int, node: fx.Node, first: bool = False) -> None:
        """Remember the node of a tensor, with channels on axis 1 (`first`) or in Keras's order."""
        self.forms[number, first] = node
        if len(self.flow.values[number].shape) < 3:
            self.forms[number, not first] = node

    def get(self, number: int, first: bool) -> fx.Node:
        """Return the node of a tensor in the wanted order, turned if need be."""
        if (number, first) not in self.forms:
            rank = len(self.flow.values[number].shape)
            axes = (0, rank - 1, *range(1, rank - 1)) if first else (0, *range(2, rank), 1)
            self.forms[number, first] = self.graph.call_function(
                torch.permute, (self.forms[number, not first], axes)
            )
        return self.forms[number, first]

    def step(self, step: Step) -> None:
        """Add the nodes of one call."""
        kind = type(step.operation).__name__
        layer = ".layers." in type(step.operation).__module__
        if layer and kind in LAYERS:
            self._layer(step, LAYERS[kind])
        elif layer:
            self._merge(step, _LAYER_FUNCTIONS[kind])
        elif kind == "Reshape":
            self._reshape(step)
        else:
            self._operation(step, _OPERATIONS[kind])

    def result(self, outputs: Any) -> Any:
        """Return the output structure with nodes for its tensors."""
        if isinstance(outputs, Ref):
            return self.get(outputs.number, False)
        if isinstance(outputs, dict):
            return {key: self.result(value) for key, value in outputs.items()}
        if isinstance(outputs, list | tuple):
            return tuple(self.result(value) for value in outputs)
        return outputs

    def _layer(self, step: Step, rule: Rule) -> None:
        layer, refs = step.operation, _refs((step.arguments, _told(step)))
        if layer.dtype_policy.compute_dtype != "float32":
            raise ModelError(
                f"it computes in {layer.compute_dtype}; save the model with the dtype policy 'float32'"
            )
        if type(layer).__name__ in _MASKED and (masks := _masks(step)):
            self._masked(step, refs[0], masks[0])
            return
        value = self.flow.values[refs[0].number]
        first = self._order(rule.layout, layer, value, refs)
        nodes = [self.get(ref.number, first) for ref in refs]
        if step.path not in self.made:
            self._make(step, rule, value, first)
        for index, path in enumerate(self.made[step.path]):
            nodes = (
                [self.graph.call_module(path, tuple(nodes))]
                if index == 0
                else [self.graph.call_module(path, (nodes[0],))]
            )
        self.put(step.outputs[0], nodes[0], first)

    def _masked(self, step: Step, ref: Ref, mask: Ref) -> None:
        if type(step.operation).__name__ != "GlobalAveragePooling1D":
            raise ModelError("it skips masked positions, which is converted for GlobalAveragePooling1D only")
        self.root[step.path] = MaskedMean()
        nodes = (self.get(ref.number, False), self.get(mask.number, False))
        self.put(step.outputs[0], self.graph.call_module(step.path, nodes))

    def _make(self, step: Step, rule: Rule, value: Value, first: bool) -> None:
        modules = dict(rule.make(step.operation, value.shape))
        if rule.activated:
            found = activation(step.operation.activation, 1 if first else len(value.shape) - 1)
            modules |= {} if found is None else {"_activation" if modules else "": found}
        self.made[step.path] = [step.path + end for end in modules]
        self.root |= {step.path + end: module.eval() for end, module in modules.items()}

    def _order(self, layout: str, layer: Any, value: Value, refs: list[Ref]) -> bool:
        """Return whether the layer works with the channels on axis 1 of what Keras has last."""
        if layout == "plain" or len(value.shape) < 3:
            return False
        if layout == "same":
            return all((ref.number, True) in self.forms for ref in refs)
        if type(layer).__name__ == "BatchNormalization":
            return channels_last_axis(layer, value.shape)
        return _data_format(layer) == "channels_last"

    def _merge(self, step: Step, emit: Emit) -> None:
        refs = _refs(step.arguments)
        shapes = [self.flow.values[ref.number].shape for ref in refs]
        axis = step.operation.axis if emit is BY_AXIS["Concatenate"] else None
        alike = emit in MERGING.values() and len({len(s) for s in shapes}) == 1
        last = axis is not None and axis in (-1, len(shapes[0]) - 1)
        first = (alike or last) and len(shapes[0]) > 2 and any((r.number, True) in self.forms for r in refs)
        nodes = [self.get(ref.number, first) for ref in refs]
        given = nodes if isinstance(step.arguments[0], list | tuple) else nodes[0]
        more = (1,) if first and last else ()
        self.put(step.outputs[0], emit(self.graph, step.operation, given, *more), first)

    def _operation(self, step: Step, emit: Emit) -> None:
        refs = _refs((step.arguments, _told(step)))
        kind = type(step.operation).__name__
        ranks = {len(self.flow.values[ref.number].shape) for ref in refs}
        free = kind in ELEMENTWISE or (
            kind in BROADCAST and len(ranks) == 1 and _only_numbers(step.arguments)
        )
        first = free and bool(refs) and all((ref.number, True) in self.forms for ref in refs)
        arguments = [self._argument(a, first, step) for a in step.arguments]
        named = {key: self._argument(a, first, step) for key, a in _told(step).items()}
        node = emit(self.graph, step.operation, *arguments, *named.values())
        if len(step.outputs) != 1:
            raise ModelError("operations with several outputs are not converted")
        self.put(step.outputs[0], node, first)

    def _argument(self, value: Any, first: bool, step: Step) -> Any:
        if isinstance(value, Ref):
            return self.get(value.number, first)
        if isinstance(value, list | tuple):
            return type(value)(self._argument(v, first, step) for v in value)
        if type(value).__name__ == "Variable":
            return self._parameter(value)
        if isinstance(value, torch.Tensor | np.ndarray):
            raise ModelError("an array of numbers is used in it; make it a weight of a layer")
        return value

    def _parameter(self, variable: Any) -> fx.Node:
        """Return the node of a variable that a layer of the user's own keeps."""
        name = identifier(variable.path)
        if name not in self.root:
            values = torch.tensor(variable.numpy(), dtype=torch.float32)
            self.root[name] = nn.Parameter(values, requires_grad=bool(variable.trainable))
        return self.graph.get_attr(name)

    def _reshape(self, step: Step) -> None:
        ref, out = _refs(step.arguments)[0], self.flow.values[step.outputs[0]].shape
        shape = out[1:]
        if out[0] is not None or sum(n is None for n in shape) > 1:
            raise ModelError("a reshape that moves the batch axis, or with two open sizes, is not converted")
        self.root[step.path] = Reshape(tuple(-1 if n is None else int(n) for n in shape))
        self.put(step.outputs[0], self.graph.call_module(step.path, (self.get(ref.number, False),)))


def _data_format(layer: Any) -> str:
    return str(getattr(layer, "data_format", None) or "channels_last")


def _told(step: Step) -> dict[str, Any]:
    return {
        key: value
        for key, value in step.named.items()
        if key not in _IGNORED and not key.endswith("mask") and value is not None
    }


def _masks(step: Step) -> list[Ref]:
    return [value for key, value in step.named.items() if key.endswith("mask") and isinstance(value, Ref)]


def _refs(arguments: Any) -> list[Ref]:
    """Return the tensors among nested arguments, in order."""
    if isinstance(arguments, Ref):
        return [arguments]
    if isinstance(arguments, dict):
        arguments = arguments.values()
    if isinstance(arguments, Iterable) and not isinstance(arguments, str | bytes | torch.Tensor):
        return [ref for argument in arguments for ref in _refs(argument)]
    return []


def _only_numbers(arguments: Any) -> bool:
    """Whether the arguments are tensors of the flow and plain numbers."""
    return all(isinstance(a, Ref | int | float) for a in arguments)
