"""ONNX operators with weights as torch layers: convolutions, products, norms, tables."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tersor.errors import ModelError
from tersor.loading.onnx.values import Build, Call, Convert, Value
from tersor.loading.padding import flat, same
from tersor.loading.pieces import Pad

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def _t(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))


def _filled(module: Any, **tensors: Tensor | None) -> Any:
    module.load_state_dict({k: v for k, v in tensors.items() if v is not None}, strict=False)
    return module


def _bias(call: Call, index: int) -> Tensor | None:
    return None if call.optional(index) is None else _t(call.known(index))


def edges(
    call: Call, rank: int, kernel: list[int], sizes: tuple[int | None, ...] | None
) -> list[tuple[int, int]]:
    """Return the padding before and after each spatial axis of a convolution or pooling.

    Raises:
        ModelError: if it depends on a size that is not known.
    """
    auto = call.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", "VALID"):
        pads = call.get("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        return list(zip(pads[:rank], pads[rank:], strict=True))
    strides, dilations = call.get("strides", [1] * rank), call.get("dilations", [1] * rank)
    found = same(sizes or (None,) * rank, kernel, strides, dilations)
    return found if auto == "SAME_UPPER" else [(after, before) for before, after in found]


def padded_input(
    build: Build, call: Call, amounts: list[tuple[int, int]], value: float = 0.0
) -> tuple[Any, Any]:
    """Return the input, with a layer in front where torch cannot pad that way, and the padding that is left."""
    node = build.tensor(call.input(0))
    if all(before == after for before, after in amounts):
        return node, tuple(before for before, _ in amounts)
    padded = build.module(f"{call.name}_pad", Pad(flat(amounts), value), node)
    return padded.node, (0,) * len(amounts)


def convolution(build: Build, call: Call) -> Value:
    """Conv with constant weights (filters, inputs / groups, spatial)."""
    weight, bias, groups = _t(call.known(1)), _bias(call, 2), int(call.get("group", 1))
    rank = weight.ndim - 2
    node, padding = padded_input(build, call, edges(call, rank, list(weight.shape[2:]), call.get("#spatial")))
    made = _CONVOLUTIONS[rank](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(call.get("strides", [1] * rank)),
        padding=padding,
        dilation=tuple(call.get("dilations", [1] * rank)),
        groups=groups,
        bias=bias is not None,
    )
    return build.module(call.name, _filled(made, weight=weight, bias=bias), node)


def transposed(build: Build, call: Call) -> Value:
    """ConvTranspose with constant weights (inputs, filters / groups, spatial) and even padding."""
    weight, bias, groups = _t(call.known(1)), _bias(call, 2), int(call.get("group", 1))
    rank = weight.ndim - 2
    pads = edges(call, rank, list(weight.shape[2:]), None)
    if (
        call.get("output_shape")
        or call.get("auto_pad", b"NOTSET") != b"NOTSET"
        or any(a != b for a, b in pads)
    ):
        raise ModelError(
            "output_shape, auto_pad and uneven padding of transposed convolutions are not converted"
        )
    made = _TRANSPOSED[rank](
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(weight.shape[2:]),
        stride=tuple(call.get("strides", [1] * rank)),
        padding=tuple(a for a, _ in pads),
        output_padding=tuple(call.get("output_padding", [0] * rank)),
        dilation=tuple(call.get("dilations", [1] * rank)),
        groups=groups,
        bias=bias is not None,
    )
    return build.module(call.name, _filled(made, weight=weight, bias=bias), build.tensor(call.input(0)))


def _linear(build: Build, call: Call, weight: Tensor, bias: Tensor | None) -> Value:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return build.module(call.name, _filled(made, weight=weight, bias=bias), build.tensor(call.input(0)))


def gemm(build: Build, call: Call) -> Value:
    """Gemm with a constant matrix: a linear layer, its factors folded in."""
    if call.get("transA", 0):
        raise ModelError("Gemm with transA=1 is not converted")
    weight = _t(call.known(1)) * float(call.get("alpha", 1.0))
    bias = _bias(call, 2)
    if bias is not None:
        bias = (bias * float(call.get("beta", 1.0))).reshape(-1)
        bias = bias.expand(weight.shape[0 if call.get("transB", 0) else 1])
    return _linear(build, call, weight if call.get("transB", 0) else weight.T, bias)


def matmul(build: Build, call: Call) -> Value:
    """MatMul: a linear layer where the right side is a constant matrix, else a product of tensors."""
    right = call.input(1).constant
    if right is not None and right.ndim == 2 and call.input(0).constant is None:
        return _linear(build, call, _t(right).T, None)
    return build.function(
        torch.matmul, build.tensor(call.input(0), call.name), build.tensor(call.input(1), call.name)
    )


def add(build: Build, call: Call) -> Value | None:
    """Take a constant row that is added to a linear layer's output as its bias; None where it is not that."""
    sides = [(call.input(0), call.input(1)), (call.input(1), call.input(0))]
    for value, other in sides:
        row = other.constant
        if value.node is None or value.node.op != "call_module" or row is None or not call.alone:
            continue
        module = build.root.get(value.node.target)
        if isinstance(module, nn.Linear) and module.bias is None and row.shape == (module.out_features,):
            module.bias = nn.Parameter(_t(row))
            build.rename(value.node, call.name)
            return value
    return None


def batch_norm(build: Build, call: Call) -> Value:
    """BatchNormalization with its four constants."""
    if call.get("training_mode", 0):
        raise ModelError("a batch norm in training mode is not converted; export the model in eval mode")
    scale, shift, mean, variance = (_t(call.known(i)) for i in range(1, 5))
    rank = int(call.get("#rank") or 4)
    made = _BATCH_NORMS[rank](
        len(scale), eps=float(call.get("epsilon", 1e-5)), momentum=1 - float(call.get("momentum", 0.9))
    )
    made = _filled(made, weight=scale, bias=shift, running_mean=mean, running_var=variance)
    return build.module(call.name, made, build.tensor(call.input(0)))


def layer_norm(build: Build, call: Call) -> Value:
    """LayerNormalization over the last axes, those of its scale."""
    scale = _t(call.known(1))
    made = nn.LayerNorm(list(scale.shape), eps=float(call.get("epsilon", 1e-5)))
    bias = _bias(call, 2)
    made = _filled(made, weight=scale, bias=torch.zeros_like(scale) if bias is None else bias)
    return build.module(call.name, made, build.tensor(call.input(0)))


def instance_norm(build: Build, call: Call) -> Value:
    """InstanceNormalization as a group norm with one channel a group."""
    scale, shift = _t(call.known(1)), _t(call.known(2))
    made = nn.GroupNorm(len(scale), len(scale), eps=float(call.get("epsilon", 1e-5)))
    return build.module(call.name, _filled(made, weight=scale, bias=shift), build.tensor(call.input(0)))


def prelu(build: Build, call: Call) -> Value:
    """PRelu with one slope, or one a channel."""
    slope = _t(call.known(1))
    if slope.numel() not in (1, slope.shape[0] if slope.ndim else 1):
        raise ModelError("PRelu is converted with one slope a channel only")
    return build.module(
        call.name, _filled(nn.PReLU(slope.numel()), weight=slope.reshape(-1)), build.tensor(call.input(0))
    )


def embedding(build: Build, call: Call) -> Value:
    """Gather of rows of a constant table."""
    table = _t(call.known(0))
    made = _filled(nn.Embedding(table.shape[0], table.shape[1]), weight=table)
    return build.module(call.name, made, build.tensor(call.input(1)))


#: Operators with weights.
WEIGHTED: dict[str, Convert] = {
    "Conv": convolution,
    "ConvTranspose": transposed,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "InstanceNormalization": instance_norm,
    "PRelu": prelu,
}
