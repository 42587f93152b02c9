"""Integers that remember where they came from.

During the traced forward pass every integer attribute of every module, and
every size read from a tensor, is a `Traced` integer: an `int` with an
expression. Arithmetic builds expressions, so each size argument of each torch
call says which attributes and sizes it was made of, and surgery can solve for
the attributes instead of guessing them.
"""

import copy
import dataclasses
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import nn

from tersor.graph.cells import Axis

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Attribute:
    """An integer held by a module, possibly inside a tuple, a dict or a config object."""

    module: str
    path: Path

    def __str__(self) -> str:
        return ".".join(str(part) for part in (self.module, *self.path) if part != "")


@dataclass(frozen=True, slots=True, eq=False)
class Size:
    """The size of an axis, as read when the axis carried these cells."""

    owner: object
    axis: Axis
    value: int


@dataclass(frozen=True, slots=True)
class Sum:
    """An operation on two expressions."""

    operation: str
    left: "Expression"
    right: "Expression"


#: Integers, sums, and their leaves: attributes, and sizes of axes in one form or another.
Expression: TypeAlias = Any

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
}


ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


class Observed:
    """What the traced integers saw: values read as numbers, and pairs compared, with what came out."""

    def __init__(self) -> None:
        self.values: list[Expression] = []
        self.compared: list[tuple[str, Expression, Expression, bool]] = []

    def comparisons(self) -> Iterator[tuple[Attribute, Size]]:
        """Yield the attributes that were found equal to sizes of this pass."""
        for order, left, right, outcome in self.compared:
            for attribute, size in ((left, right), (right, left)):
                if (
                    order == "eq"
                    and outcome
                    and isinstance(attribute, Attribute)
                    and isinstance(size, Size)
                    and size.owner is self
                ):
                    yield attribute, size


class Traced(int):
    """An `int` with the expression that made it."""

    expression: Expression
    seen: Observed

    @classmethod
    def make(cls, value: int, expression: Expression, seen: Observed) -> "Traced":
        """Return `value` with its expression."""
        made = cls(value)
        made.expression, made.seen = expression, seen
        return made

    def __deepcopy__(self, memo: object) -> int:
        return int(self)

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return int, (int(self),)

    def __hash__(self) -> int:
        return int.__hash__(self)

    def __eq__(self, other: object) -> Any:
        same = operator.eq(int(self), int(other) if isinstance(other, int) else other)
        # Equal to a plain number may mean: to a size that some call gave out untraced.
        if isinstance(other, Traced) or (same is False and isinstance(other, int)):
            self.seen.compared.append(("eq", self.expression, expression_of(other), bool(same)))
        return same

    def __ne__(self, other: object) -> Any:
        same = self == other
        return not same if isinstance(same, bool) else ~same

    def __neg__(self) -> "Traced":
        return Traced.make(-int(self), Sum("sub", 0, self.expression), self.seen)

    def __float__(self) -> float:
        self.seen.values.append(self.expression)
        return float(int(self))

    def __truediv__(self, other: Any) -> Any:
        self.seen.values.append(self.expression)
        return int(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        self.seen.values.append(self.expression)
        return other / int(self)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Note that numpy reads the number, as in `numpy.sqrt(self.head_dim)`."""
        self.seen.values.append(self.expression)
        plain = (int(value) if isinstance(value, Traced) else value for value in inputs)
        return getattr(ufunc, method)(*plain, **options)

    def __pow__(self, other: Any, modulo: int | None = None) -> Any:
        self.seen.values.append(self.expression)
        return pow(int(self), other, modulo)

    def __rpow__(self, other: Any) -> Any:
        self.seen.values.append(self.expression)
        return other ** int(self)


def expression_of(value: int) -> Expression:
    """Return the expression of an integer: itself when it is a plain one."""
    return value.expression if isinstance(value, Traced) else int(value)


def _install(name: str, function: Callable[[int, int], int]) -> None:
    def forward(self: Traced, other: Any) -> Any:
        if not isinstance(other, int):
            self.seen.values.append(self.expression)
            return function(int(self), other)
        return Traced.make(
            function(int(self), int(other)), Sum(name, self.expression, expression_of(other)), self.seen
        )

    def reflected(self: Traced, other: Any) -> Any:
        if not isinstance(other, int):
            self.seen.values.append(self.expression)
            return function(other, int(self))
        return Traced.make(
            function(int(other), int(self)), Sum(name, expression_of(other), self.expression), self.seen
        )

    setattr(Traced, f"__{name}__", forward)
    setattr(Traced, f"__r{name}__", reflected)


def _install_order(name: str) -> None:
    compare = ORDERS[name]

    def ordered(self: Traced, other: Any) -> Any:
        outcome = compare(int(self), int(other) if isinstance(other, int) else other)
        if isinstance(outcome, bool) and isinstance(other, int):
            self.seen.compared.append((name, self.expression, expression_of(other), outcome))
        return outcome

    setattr(Traced, f"__{name}__", ordered)


for _name, _function in OPERATIONS.items():
    _install(_name, _function)
for _name in ("lt", "le", "gt", "ge"):
    _install_order(_name)


class Sizes(tuple):
    """What `tensor.shape` gives while tracing: a tuple of traced sizes."""

    def numel(self) -> int:
        """Return the product of the sizes."""
        return math.prod(self)


def leaves(expression: Expression) -> Iterator[Any]:
    """Yield the attributes and sizes in an expression."""
    if isinstance(expression, Sum):
        yield from leaves(expression.left)
        yield from leaves(expression.right)
    elif not isinstance(expression, int):
        yield expression


def evaluate(expression: Expression, value_of: Callable[[Any], int]) -> int:
    """Return the value of an expression, given that of each leaf."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, Sum):
        left, right = evaluate(expression.left, value_of), evaluate(expression.right, value_of)
        return OPERATIONS[expression.operation](left, right)
    return value_of(expression)


def tag_attributes(model: nn.Module, seen: Observed) -> None:
    """Replace every integer that a module of `model` holds by a traced one; configs are copied per module."""
    for name, module in model.named_modules():
        for key, value in list(module.__dict__.items()):
            if not key.startswith("_") and key != "training":
                module.__dict__[key] = _tagged(value, Attribute(name, (key,)), seen)


def _tagged(value: Any, key: Attribute, seen: Observed) -> Any:
    if isinstance(value, int):
        return value if isinstance(value, bool) or value <= 1 else Traced.make(int(value), key, seen)
    if type(value) in (tuple, list):
        return type(value)(_tagged(item, _below(key, i), seen) for i, item in enumerate(value))
    if type(value) is dict and len(key.path) < 4:
        return {k: _tagged(v, _below(key, k), seen) if isinstance(k, str) else v for k, v in value.items()}
    if is_config(value) and len(key.path) < 4:
        return with_fields(
            value, {k: _tagged(v, _below(key, k), seen) for k, v in public_fields(value).items()}
        )
    return value


def _below(key: Attribute, part: str | int) -> Attribute:
    return Attribute(key.module, (*key.path, part))


def is_config(value: Any) -> bool:
    """Whether a value is a bag of settings: a data class, a namespace, or what calls itself a config."""
    if isinstance(value, type | nn.Module) or not isinstance(getattr(value, "__dict__", None), dict):
        return False
    named = type(value).__name__.lower()
    return dataclasses.is_dataclass(value) or named.endswith(("config", "args", "namespace", "settings"))


def public_fields(value: Any) -> dict[str, Any]:
    """Return the public entries of an object's `__dict__`."""
    return {key: item for key, item in vars(value).items() if not key.startswith("_")}


def with_fields(value: Any, fields: Mapping[str, Any]) -> Any:
    """Return a shallow copy of an object with other values in its `__dict__`."""
    made = copy.copy(value)
    made.__dict__.update(fields)
    return made


def read_attribute(module: nn.Module, path: Path) -> Any:
    """Return what a module holds under a path."""
    value: Any = vars(module)
    for part in path:
        value = vars(value)[part] if is_config(value) else value[part]
    return value


def write_attribute(module: nn.Module, path: Path, value: int) -> None:
    """Set what a module holds under a path; containers on the way are copied, not changed."""
    first = str(path[0])
    vars(module)[first] = _rebuilt(vars(module)[first], path[1:], value)


def _rebuilt(holder: Any, path: Path, value: int) -> Any:
    if not path:
        return value
    if is_config(holder):
        key = str(path[0])
        return with_fields(holder, {key: _rebuilt(vars(holder)[key], path[1:], value)})
    if isinstance(holder, dict):
        return {**holder, path[0]: _rebuilt(holder[path[0]], path[1:], value)}
    items = list(holder)
    items[int(path[0])] = _rebuilt(items[int(path[0])], path[1:], value)
    return type(holder)(items)
