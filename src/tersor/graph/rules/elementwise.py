"""Elementwise operations: operands broadcast, and equal positions share their cells."""

from torch import Tensor

from tersor.graph.labels import Call, Labels
from tersor.graph.rules.registry import rule

UNARY_AND_BROADCAST = [
    "sub",
    "rsub",
    "mul",
    "div",
    "pow",
    "neg",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "rsqrt",
    "reciprocal",
    "abs",
    "sign",
    "sgn",
    "sin",
    "cos",
    "tan",
    "sinh",
    "cosh",
    "asin",
    "acos",
    "atan",
    "atan2",
    "tanh",
    "sigmoid",
    "erf",
    "erfc",
    "erfinv",
    "gelu",
    "silu",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "hardshrink",
    "softshrink",
    "softplus",
    "log_sigmoid_forward",
    "logit",
    "mish",
    "prelu",
    "_prelu_kernel",
    "threshold",
    "square",
    "clamp",
    "clamp_min",
    "clamp_max",
    "minimum",
    "maximum",
    "fmin",
    "fmax",
    "where",
    "masked_fill",
    "addcmul",
    "addcdiv",
    "lerp",
    "remainder",
    "fmod",
    "floor_divide",
    "floor",
    "ceil",
    "round",
    "trunc",
    "frac",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "isnan",
    "isinf",
    "isfinite",
    "isneginf",
    "isposinf",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "bitwise_not",
    "logical_and",
    "logical_or",
    "logical_not",
    "logical_xor",
    "nan_to_num",
    "xlogy",
    "heaviside",
    "hypot",
    "copysign",
    "bernoulli",
    "dropout",
    "native_dropout",
    "view_as_real_copy",
    "real",
    "imag",
    "angle",
    "conj",
    "_conj",
    "resolve_conj",
    "resolve_neg",
    "complex",
    "polar",
    "bitwise_left_shift",
    "bitwise_right_shift",
    "special_expit",
    "special_erf",
    "digamma",
    "lgamma",
    "signbit",
    "__and__",
    "__or__",
    "__xor__",
    "rrelu_with_noise",
    "sinc",
    "logaddexp",
    "logaddexp2",
    "gcd",
]


@rule(*UNARY_AND_BROADCAST)
def elementwise(labels: Labels, call: Call) -> None:
    """Unify all operands; every output has the common axes."""
    outputs = call.outputs
    operands = [value for value in call.args.values() if isinstance(value, Tensor)]
    axes = labels.broadcast(operands, outputs[0], f"meets an axis that cannot change in `{call.name}`")
    for out in outputs:
        if out.dim() == len(axes):
            labels.put(out, axes)
        else:
            labels.put_fixed(out)


@rule("add")
def add(labels: Labels, call: Call) -> None:
    """Unify the operands; where both are computed and alike in shape, the axes are a stream."""
    elementwise(labels, call)
    first, second = call["self"], call["other"]
    same = getattr(second, "shape", None) == first.shape
    if same and labels.computed(first) and labels.computed(second):
        for axis in labels.of(call.out):
            labels.mark(axis, "stream")


@rule(
    "clone",
    "detach",
    "_to_copy",
    "alias",
    "contiguous",
    "lift_fresh",
    "lift_fresh_copy",
    "tril",
    "triu",
    "to",
    "fill_tensor",
    "_autocast_to_reduced_precision",
    "_autocast_to_full_precision",
    "_conj_physical",
    "positive",
)
def same(labels: Labels, call: Call) -> None:
    """Keep the axes."""
    labels.put(call.out, labels.of(call["self"] if "self" in call.args else call.tensors[0]))


@rule("copy", "copy_")
def copy(labels: Labels, call: Call) -> None:
    """Unify source and destination; the destination stays the same tensor."""
    target = call["self"]
    labels.put(
        call.out,
        labels.broadcast([target, call["src"]], target, "is written into an axis that cannot change"),
    )


@rule("fill_", "zero_", "uniform_", "normal_", "bernoulli_", "random_", "exponential_", "set_")
def overwrite(labels: Labels, call: Call) -> None:
    """Keep the axes of the destination."""
    labels.put(call.out, labels.of(call["self"]))
