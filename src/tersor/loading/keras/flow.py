"""A Keras model as a flat list of steps: every layer and operation that it calls, in order, with its arguments.

Keras runs any model on symbolic tensors that remember the call that made them. Doing so with a subclassed model,
or with a layer that is made of layers, gives the calls inside; so Sequential, functional and subclassed models all
become one list.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tersor.errors import ModelError
from tersor.loading.references import first_line


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor of the flow, by number."""

    number: int


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a tensor: its shape with None for the batch and other open sizes, and its type."""

    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One call.

    Attributes:
        path: dotted name of the layer, as the torch module will be called.
        operation: the Keras layer or operation.
        arguments: positional arguments with `Ref` for tensors.
        named: keyword arguments, likewise.
        outputs: numbers of the tensors that it makes.
    """

    path: str
    operation: Any
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    outputs: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Flow:
    """All calls of a model.

    Attributes:
        name: of the model's class.
        inputs: names and numbers of the input tensors, in the order of the call.
        steps: in an order in which they can run.
        outputs: the model's output with `Ref` for tensors.
        values: what is known of each tensor, by number.
    """

    name: str
    inputs: tuple[tuple[str, int], ...] = ()
    steps: list[Step] = field(default_factory=list)
    outputs: Any = None
    values: list[Value] = field(default_factory=list)

    def add(self, tensor: Any) -> Ref:
        """Number a new tensor that looks like the Keras tensor `tensor`."""
        self.values.append(Value(tuple(tensor.shape), str(tensor.dtype)))
        return Ref(len(self.values) - 1)


def flow_of(keras: Any, model: Any, is_leaf: Callable[[Any], bool]) -> Flow:
    """Return every call that `model` makes.

    Args:
        keras: the Keras module.
        model: a built Keras model.
        is_leaf: whether a layer is taken as a whole; all others are looked into.

    Raises:
        ModelError: if the shape of the inputs is unknown, or the model does not run on symbolic tensors.
    """
    given, names = model_inputs(keras, model)
    flow = Flow(identifier(type(model).__name__))
    known: dict[int, Ref] = {}
    flat = keras.tree.flatten(given)
    for tensor in flat:
        known[id(tensor)] = flow.add(tensor)
    flow.inputs = tuple((name, known[id(tensor)].number) for name, tensor in zip(names, flat, strict=True))
    flow.outputs = _Walk(keras, flow, is_leaf).into(model, (given,), {}, "", known)
    return flow


def model_inputs(keras: Any, model: Any) -> tuple[Any, list[str]]:
    """Return symbolic inputs in the structure that the model is called with, and a name for each."""
    functional = importlib.import_module("keras.src.models.functional").Functional
    sequential = isinstance(model, keras.Sequential) and model.built and model.inputs
    if sequential or isinstance(model, functional):
        structure = model.inputs[0] if sequential else model.input
        fresh = keras.tree.map_structure(lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype), structure)
        names = list(structure) if isinstance(structure, Mapping) else [t.name for t in model.inputs]
        return fresh, [identifier(name) for name in names]
    shapes = model.get_build_config() or {}
    shape = shapes.get("input_shape", shapes.get("shapes_dict"))
    if not shape:
        raise ModelError(
            f"The {type(model).__name__} does not know the shape of its inputs. Call it once on a batch, or call "
            "build((None, ...)) on it, before it is saved or passed on."
        )
    return _of_shapes(keras, shape)


def _of_shapes(keras: Any, shape: Any) -> tuple[Any, list[str]]:
    make = lambda s: keras.Input(batch_shape=(None, *s[1:]))
    if isinstance(shape, Mapping):
        names = [str(name).removesuffix("_shape") for name in shape]
        return {name: make(s) for name, s in zip(names, shape.values(), strict=True)}, names
    if shape and isinstance(shape[0], list | tuple):
        return [make(s) for s in shape], [f"x{i + 1}" for i in range(len(shape))]
    return make(shape), ["x"]


def identifier(name: str) -> str:
    """Return `name` as a Python identifier.

    Example:
        >>> identifier("block/1.conv")
        'block_1_conv'
    """
    found = re.sub(r"\W", "_", name)
    return f"_{found}" if found[:1].isdigit() else found


@dataclass(slots=True)
class _Walk:
    """Looks into models and layers until only leaves are left."""

    keras: Any
    flow: Flow
    is_leaf: Callable[[Any], bool]
    names: dict[int, str] = field(default_factory=dict)
    depth: int = 0

    def into(
        self,
        layer: Any,
        arguments: tuple[Any, ...],
        named: Mapping[str, Any],
        path: str,
        known: dict[int, Ref],
    ) -> Any:
        """Run `layer` on symbolic tensors, add the calls that it makes, and return its outputs as references."""
        tree, keras = self.keras.tree, self.keras
        origin = {
            id(t): t for t in tree.flatten((arguments, dict(named))) if isinstance(t, keras.KerasTensor)
        }
        fresh = {
            key: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for key, tensor in origin.items()
        }
        swap = lambda t: fresh.get(id(t), t)
        inside = {id(fresh[key]): known[key] for key in origin}
        outputs = self._called(
            layer, tree.map_structure(swap, arguments), tree.map_structure(swap, dict(named))
        )
        self.depth += 1
        for node in self._calls(list(fresh.values()), outputs):
            self._node(node, path, inside)
        self.depth -= 1
        return tree.map_structure(lambda t: inside.get(id(t), t), outputs)

    def _called(self, layer: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self.depth > 32:
            raise ModelError(f"The Keras layer {layer.name!r} calls itself more than 32 deep.")
        named.pop("mask", None)
        named.pop("training", None)
        try:
            return layer.call(*arguments, **named)
        except Exception as cause:  # the user's call may raise anything
            raise ModelError(
                f"The Keras {type(layer).__name__} {layer.name!r} does not run on symbolic tensors "
                f"({first_line(cause)}). Write its call with Keras layers and keras.ops, or pass it in PyTorch."
            ) from cause

    def _calls(self, inputs: list[Any], outputs: Any) -> list[Any]:
        """Return the recorded calls between inputs and outputs, in order."""
        made = [t for t in self.keras.tree.flatten(outputs) if isinstance(t, self.keras.KerasTensor)]
        function = self.keras.Function(inputs, made)
        return [node for node in _in_order(function) if not node.is_input]

    def _node(self, node: Any, path: str, known: dict[int, Ref]) -> None:
        operation, keras = node.operation, self.keras
        arguments, named = tuple(node.arguments.args), dict(node.arguments.kwargs)
        inner = self._name(operation, path)
        if not self.is_leaf(operation):
            outputs = self.into(operation, arguments, named, inner, known)
            refs = [r for r in keras.tree.flatten(outputs) if isinstance(r, Ref)]
        else:
            swap = lambda t: known.get(id(t), t)
            refs = [self.flow.add(tensor) for tensor in node.outputs]
            self.flow.steps.append(
                Step(
                    inner,
                    operation,
                    keras.tree.map_structure(swap, arguments),
                    keras.tree.map_structure(swap, named),
                    tuple(ref.number for ref in refs),
                )
            )
        known.update({id(tensor): ref for tensor, ref in zip(node.outputs, refs, strict=True)})

    def _name(self, operation: Any, path: str) -> str:
        """Return a dotted name that is this operation's alone; a layer called twice keeps its name."""
        if id(operation) not in self.names:
            wanted = ".".join(filter(None, (path, identifier(operation.name))))
            taken, number = set(self.names.values()), 1
            name = wanted
            while name in taken:
                number += 1
                name = f"{wanted}_{number}"
            self.names[id(operation)] = name
        return self.names[id(operation)]


def _in_order(function: Any) -> list[Any]:
    depths = function._nodes_by_depth
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
