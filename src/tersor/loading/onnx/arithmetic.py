"""ONNX operators that compute element by element, or along an axis, as torch functions."""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from tersor.errors import ModelError
from tersor.loading.onnx.values import Build, Call, Convert, Value
from tersor.loading.onnx.weighted import add as as_bias
from tersor.loading.pieces import Reduce

_TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64}
_TYPES |= {9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}


def _unary(function: Callable[..., Any], *attributes: tuple[str, float]) -> Convert:
    """A function of one tensor and of attributes with their defaults."""

    def convert(build: Build, call: Call) -> Value:
        given = (float(call.get(name, default)) for name, default in attributes)
        return build.function(function, build.tensor(call.input(0)), *given)

    return convert


def _module(make: Callable[[Call], nn.Module]) -> Convert:
    return lambda build, call: build.module(call.name, make(call), build.tensor(call.input(0)))


#: Functions of two integers of the host, by name: the code of a graph module can hold names, not functions.
_COUNTING: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "pow": operator.pow,
    "mod": operator.mod,
    "max": max,
    "min": min,
}


def host_binary(name: str, a: Any, b: Any) -> Any:
    """Apply a function of two integers to integers or lists of them.

    Example:
        >>> host_binary("mul", [2, 3], 4)
        [8, 12]
    """
    function = _COUNTING[name]
    if isinstance(a, list | tuple) or isinstance(b, list | tuple):
        size = max(len(v) for v in (a, b) if isinstance(v, list | tuple))
        spread = lambda v: list(v) * (size // len(v)) if isinstance(v, list | tuple) else [v] * size
        return [function(p, q) for p, q in zip(spread(a), spread(b), strict=True)]
    return function(a, b)


def _binary(function: Callable[..., Any], counting: str = "") -> Callable[[Build, Call], Value]:
    """A function of two tensors; of two sizes where both are integers of the host."""

    def convert(build: Build, call: Call) -> Value:
        a, b = call.input(0), call.input(1)
        if counting and a.counted and b.counted:
            return build.count(host_binary, counting, build.numbers(a), build.numbers(b))
        return build.function(function, build.operand(a, call.name), build.operand(b, call.name))

    return convert


_plus = _binary(operator.add, "add")


def _add(build: Build, call: Call) -> Value:
    return as_bias(build, call) or _plus(build, call)


def _variadic(function: Callable[..., Any], counting: str = "") -> Convert:
    def convert(build: Build, call: Call) -> Value:
        values = [value for value in call.inputs if value is not None]
        if counting and all(value.counted for value in values):
            parts = [build.numbers(value) for value in values]
            total = reduce(lambda a, b: build.count(host_binary, counting, a, b).node, parts)
            return Value(total, host=True)
        nodes = [build.tensor(value, call.name) for value in values]
        return Value(reduce(lambda a, b: build.function(function, a, b).node, nodes))

    return convert


def _clip(build: Build, call: Call) -> Value:
    low, high = (_limit(call, i) for i in (1, 2))
    node = build.tensor(call.input(0))
    if (low, high) == (0.0, 6.0):
        return build.module(call.name, nn.ReLU6(), node)
    return build.function(torch.clamp, node, low, high)


def _limit(call: Call, index: int) -> float | None:
    return None if call.optional(index) is None else float(call.known(index).item())


def _cast(build: Build, call: Call) -> Value:
    value, kind = call.input(0), int(call.get("to"))
    if value.host and kind in (6, 7):
        return value
    if kind not in _TYPES:
        raise ModelError(f"a cast to the ONNX type {kind} is not converted")
    return Value(build.graph.call_method("to", (build.tensor(value), _TYPES[kind])))


def _gelu(build: Build, call: Call) -> Value:
    mode = call.get("approximate", b"none").decode()
    return build.module(call.name, nn.GELU(mode), build.tensor(call.input(0)))


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Return `min(max(alpha x + beta, 0), 1)`.

    Example:
        >>> hard_sigmoid(torch.tensor([0.0, 9.0]), 0.2, 0.5)
        tensor([0.5000, 1.0000])
    """
    return (alpha * x + beta).clamp(0.0, 1.0)


def _hard_sigmoid(build: Build, call: Call) -> Value:
    alpha, beta = float(call.get("alpha", 0.2)), float(call.get("beta", 0.5))
    node = build.tensor(call.input(0))
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return build.module(call.name, nn.Hardsigmoid(), node)
    return build.function(hard_sigmoid, node, alpha, beta)


def _softmax(function: Callable[..., Any]) -> Convert:
    return lambda build, call: build.function(
        function, build.tensor(call.input(0)), int(call.get("axis", -1))
    )


def _reduction(how: str) -> Convert:
    def convert(build: Build, call: Call) -> Value:
        given = call.get("axes") if call.optional(1) is None else [int(n) for n in call.known(1)]
        if not given:
            raise ModelError("a reduction over all axes, the batch included, is not converted")
        keep = bool(call.get("keepdims", 1))
        return build.module(call.name, Reduce(how, tuple(given), keep), build.tensor(call.input(0)))

    return convert


def norm(x: Tensor, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """Return the Euclidean norm over axes.

    Example:
        >>> norm(torch.tensor([[3.0, 4.0]]), (1,), False)
        tensor([5.])
    """
    return torch.linalg.vector_norm(x, dim=axes, keepdim=keepdim)


def _norm(build: Build, call: Call) -> Value:
    axes = call.get("axes") if call.optional(1) is None else [int(n) for n in call.known(1)]
    return build.function(norm, build.tensor(call.input(0)), tuple(axes or ()), bool(call.get("keepdims", 1)))


def _where(build: Build, call: Call) -> Value:
    condition, a, b = call.inputs
    assert condition is not None
    assert a is not None
    assert b is not None
    return build.function(
        torch.where, build.tensor(condition), build.operand(a, call.name), build.operand(b, call.name)
    )


def _argmax(build: Build, call: Call) -> Value:
    axis, keep = int(call.get("axis", 0)), bool(call.get("keepdims", 1))
    return build.function(torch.argmax, build.tensor(call.input(0)), axis, keep)


def _einsum(build: Build, call: Call) -> Value:
    nodes = [build.tensor(v, call.name) for v in call.inputs if v is not None]
    return build.function(torch.einsum, call.get("equation").decode(), *nodes)


def _same(_build: Build, call: Call) -> Value:
    return call.input(0)


#: Operators that compute.
ARITHMETIC: dict[str, Convert] = {
    "Add": _add,
    "Sub": _binary(operator.sub, "sub"),
    "Mul": _binary(operator.mul, "mul"),
    "Div": _binary(operator.truediv, "floordiv"),
    "Pow": _binary(operator.pow, "pow"),
    "Mod": _binary(operator.mod, "mod"),
    "Max": _variadic(torch.maximum, "max"),
    "Min": _variadic(torch.minimum, "min"),
    "Sum": _variadic(operator.add, "add"),
    "Equal": _binary(operator.eq),
    "Greater": _binary(operator.gt),
    "GreaterOrEqual": _binary(operator.ge),
    "Less": _binary(operator.lt),
    "LessOrEqual": _binary(operator.le),
    "And": _binary(torch.logical_and),
    "Or": _binary(torch.logical_or),
    "Not": _unary(torch.logical_not),
    "Where": _where,
    "Cast": _cast,
    "Clip": _clip,
    "Relu": _module(lambda _: nn.ReLU()),
    "Sigmoid": _module(lambda _: nn.Sigmoid()),
    "Tanh": _module(lambda _: nn.Tanh()),
    "HardSwish": _module(lambda _: nn.Hardswish()),
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _module(lambda call: nn.LeakyReLU(float(call.get("alpha", 0.01)))),
    "Elu": _module(lambda call: nn.ELU(float(call.get("alpha", 1.0)))),
    "Selu": _module(lambda _: nn.SELU()),
    "Softplus": _module(lambda _: nn.Softplus(threshold=1e9)),
    "Softsign": _module(lambda _: nn.Softsign()),
    "Mish": _module(lambda _: nn.Mish()),
    "Gelu": _gelu,
    "Erf": _unary(torch.erf),
    "Sqrt": _unary(torch.sqrt),
    "Reciprocal": _unary(torch.reciprocal),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Abs": _unary(torch.abs),
    "Neg": _unary(operator.neg),
    "Floor": _unary(torch.floor),
    "Ceil": _unary(torch.ceil),
    "Round": _unary(torch.round),
    "Sign": _unary(torch.sign),
    "IsNaN": _unary(torch.isnan),
    "IsInf": _unary(torch.isinf),
    "Sin": _unary(torch.sin),
    "Cos": _unary(torch.cos),
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "ReduceMean": _reduction("mean"),
    "ReduceSum": _reduction("sum"),
    "ReduceMax": _reduction("amax"),
    "ReduceMin": _reduction("amin"),
    "ReduceL2": _norm,
    "ArgMax": _argmax,
    "Einsum": _einsum,
    "Identity": _same,
    "Dropout": _same,
}
