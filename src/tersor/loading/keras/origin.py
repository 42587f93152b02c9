"""Where a converted module came from: the calls of the Keras model as plain data, for the way back to Keras."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from tersor.loading.keras.flow import Flow, Value

#: Key in `GraphModule.meta`, which is copied with the module and kept by surgery.
ORIGIN = "keras"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a Keras layer or operation.

    Attributes:
        path: of its torch modules.
        modules: what is added to the path for each module, and the class that it had.
        config: the layer or operation as Keras serializes it.
        arguments: positional arguments with `Ref` for tensors.
        named: keyword arguments, likewise.
        outputs: numbers of the tensors that it makes.
    """

    path: str
    modules: tuple[tuple[str, str], ...]
    config: Mapping[str, Any]
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """The Keras model that a module was made of.

    Attributes:
        name: of its class.
        inputs: names, numbers, shapes and types of the inputs.
        calls: in order.
        outputs: the output structure with `Ref` for tensors.
    """

    name: str
    inputs: tuple[tuple[str, int, Value], ...]
    calls: tuple[Call, ...]
    outputs: Any


def remember(keras: Any, flow: Flow, module: fx.GraphModule) -> None:
    """Write the origin of `module` into its `meta`."""
    found = dict(module.named_modules())
    calls = tuple(
        Call(
            step.path,
            _modules(found, step.path),
            keras.saving.serialize_keras_object(step.operation),
            step.arguments,
            {key: value for key, value in step.named.items() if key not in ("training", "mask")},
            step.outputs,
        )
        for step in flow.steps
    )
    inputs = tuple((name, number, flow.values[number]) for name, number in flow.inputs)
    module.meta[ORIGIN] = Origin(flow.name, inputs, calls, flow.outputs)


def _modules(found: Mapping[str, nn.Module], path: str) -> tuple[tuple[str, str], ...]:
    ends = ("", "_pad", "_crop", "_activation", ".pad", ".depthwise", ".pointwise")
    return tuple((end, type(found[path + end]).__name__) for end in ends if path + end in found)
