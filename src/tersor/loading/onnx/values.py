"""What an ONNX value is while its graph becomes a torch module: a tensor, a constant, or integers of the host."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import fx, nn

from tersor.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A value of the graph.

    Attributes:
        node: what computes it; None for a constant.
        constant: its numbers, where they are known.
        host: whether the node gives Python integers (sizes), not a tensor.
    """

    node: Any = None
    constant: np.ndarray | None = None
    host: bool = False

    @property
    def counted(self) -> bool:
        """Whether it can serve as sizes: integers of the host, or known ones."""
        return self.host or (self.constant is not None and self.constant.dtype.kind in "iu")


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One operator of the graph.

    Attributes:
        kind: operator, such as `Conv`.
        name: for its module.
        inputs: values; None for one that is left out.
        attributes: by name.
        outputs: how many results are used.
        alone: whether its first input is used by nothing else.
    """

    kind: str
    name: str
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    outputs: int = 1
    alone: bool = False

    def input(self, index: int) -> Value:
        """Return an input that must be there.

        Raises:
            ModelError: if it is not.
        """
        found = self.optional(index)
        if found is None:
            raise ModelError(f"input {index} is missing")
        return found

    def optional(self, index: int) -> Value | None:
        """Return an input, or None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def known(self, index: int) -> np.ndarray:
        """Return the numbers of a constant input.

        Raises:
            ModelError: if it is computed by the graph.
        """
        found = self.input(index).constant
        if found is None:
            raise ModelError(f"input {index} is computed by the graph, and only a constant one is converted")
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        return self.attributes.get(name, default)


@dataclass(slots=True)
class Build:
    """A torch graph in the making.

    Attributes:
        batch: the number of samples that the ONNX graph is fixed to; 0 where it is open.
        graph: the calls so far.
        root: modules and constants by dotted name.
    """

    batch: int = 0
    graph: fx.Graph = field(default_factory=fx.Graph)
    root: dict[str, Any] = field(default_factory=dict)

    def module(self, name: str, module: nn.Module, *arguments: Any) -> Value:
        """Add a module and its call."""
        name = self.free(name)
        self.root[name] = module.eval()
        return Value(self.graph.call_module(name, arguments))

    def rename(self, node: fx.Node, name: str) -> None:
        """Call the module of a node by another name, if that one tells more: one with dots comes from its weights."""
        if "." in name:
            module = self.root.pop(str(node.target))
            node.target = self.free(name)
            self.root[node.target] = module

    def function(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Value:
        """Add a call of a torch function."""
        return Value(self.graph.call_function(function, arguments, named))

    def count(self, function: Callable[..., Any], *arguments: Any) -> Value:
        """Add a call that gives integers of the host."""
        return Value(self.graph.call_function(function, arguments), host=True)

    def tensor(self, value: Value, name: str = "constant") -> fx.Node:
        """Return the node of a value as a tensor."""
        if value.constant is not None:
            return self._constant(value.constant, name)
        return self.graph.call_function(torch.tensor, (value.node,)) if value.host else value.node

    def operand(self, value: Value, name: str) -> Any:
        """Return a value for arithmetic: single numbers as they are, so that they need no memory."""
        if value.constant is not None and value.constant.size == 1 and value.constant.ndim <= 1:
            return value.constant.reshape(()).item()
        return self.tensor(value, name)

    def numbers(self, value: Value) -> Any:
        """Return a value as integers of the host: known ones, or the node that gives them."""
        if value.constant is not None:
            return value.constant.tolist()
        if not value.host:
            raise ModelError("a size is computed from tensors, which is not converted")
        return value.node

    def free(self, wanted: str) -> str:
        """Return `wanted`, or the first name like it that is free and lies under no other module."""
        name, number = wanted, 1
        while self._clashes(name):
            number += 1
            name = f"{wanted}_{number}"
        return name

    def _clashes(self, name: str) -> bool:
        return any(
            name == other or other.startswith(f"{name}.") or name.startswith(f"{other}.")
            for other in self.root
        )

    def _constant(self, array: np.ndarray, name: str) -> fx.Node:
        name = self.free(f"{name.replace('.', '_')}_value")
        tensor = torch.from_numpy(np.array(array))
        # What a trained network adds or multiplies with is a weight; numbers of other types are tables.
        self.root[name] = nn.Parameter(tensor) if tensor.is_floating_point() else tensor
        return self.graph.get_attr(name)


#: Converts one call; gives its results in order.
Convert: TypeAlias = Callable[[Build, Call], "Value | Sequence[Value]"]


def module_name(node_name: str, kind: str, weights: Sequence[str]) -> str:
    """Return a dotted name for an operator: that of its weights where they have one, else its own.

    Example:
        >>> module_name("/layer1/Conv_3", "Conv", ["layer1.0.conv.weight"]), module_name("", "Relu", [])
        ('layer1.0.conv', 'relu')
    """
    for weight in weights:
        stem, _, last = weight.rpartition(".")
        parts = stem.split(".")
        if last in ("weight", "bias") and all(re.fullmatch(r"\w+", p) for p in parts):
            return stem
    name = re.sub(r"\W+", "_", node_name).strip("_") or kind.lower()
    return f"_{name}" if name[0].isdigit() else name
