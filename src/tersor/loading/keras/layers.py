"""The Keras layers that hold weights, as a table: dense, convolutions, norms, embeddings."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from tersor.errors import ModelError
from tersor.loading.keras.rules import Modules, Rule, Shape, arrays, filled
from tersor.loading.padding import flat, padded, same
from tersor.loading.pieces import Pad

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def dense(layer: Any, _shape: Shape) -> Modules:
    """`x @ kernel + bias`; the kernel is (inputs, units) in Keras."""
    found = arrays(layer)
    kernel = found["kernel"]
    linear = nn.Linear(kernel.shape[0], kernel.shape[1], bias="bias" in found)
    return {"": filled(linear, {"weight": kernel.T, "bias": found.get("bias")})}


def _dense_weights(modules: Modules) -> dict[str, Tensor]:
    return _with_bias("kernel", modules[""].weight.T, modules[""])


def _with_bias(name: str, kernel: Any, module: Any) -> dict[str, Tensor]:
    return {name: kernel} | ({} if module.bias is None else {"bias": module.bias})


def spatial(layer: Any, shape: Shape) -> Shape:
    """Return the spatial sizes of an input of `shape`."""
    return shape[2:] if layer.data_format == "channels_first" else shape[1:-1]


def _window(layer: Any, shape: Shape, value: float = 0.0) -> tuple[tuple[int, ...], dict[str, nn.Module]]:
    """Return the padding of a convolution, and the layer in front where torch cannot pad that way."""
    rank = len(layer.kernel_size)
    if layer.padding == "valid":
        return (0,) * rank, {}
    if layer.padding == "causal":
        return padded([((layer.kernel_size[0] - 1) * layer.dilation_rate[0], 0)], value)
    return padded(same(spatial(layer, shape), layer.kernel_size, layer.strides, layer.dilation_rate), value)


def _convolution(layer: Any, weight: Tensor, bias: Tensor | None, padding: Any, groups: int) -> nn.Module:
    rank = weight.ndim - 2
    made = _CONVOLUTIONS[rank](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=layer.strides,
        padding=padding,
        dilation=layer.dilation_rate,
        groups=groups,
        bias=bias is not None,
    )
    return filled(made, {"weight": weight, "bias": bias})


def _filters_first(kernel: Tensor) -> Tensor:
    """(spatial, inputs, filters) -> (filters, inputs, spatial)."""
    return kernel.movedim((-1, -2), (0, 1))


def _filters_last(weight: Tensor) -> Tensor:
    return weight.movedim((0, 1), (-1, -2))


def convolution(layer: Any, shape: Shape) -> Modules:
    """Convolution with a kernel of (spatial, inputs / groups, filters)."""
    found, (padding, front) = arrays(layer), _window(layer, shape)
    weight = _filters_first(found["kernel"])
    return {**front, "": _convolution(layer, weight, found.get("bias"), padding, layer.groups)}


def _convolution_weights(modules: Modules) -> dict[str, Tensor]:
    return _with_bias("kernel", _filters_last(modules[""].weight), modules[""])


def _depthwise(kernel: Tensor) -> Tensor:
    """(spatial, inputs, multiplier) -> (inputs * multiplier, 1, spatial)."""
    moved = kernel.movedim((-2, -1), (0, 1))
    return moved.reshape(-1, 1, *kernel.shape[:-2])


def depthwise(layer: Any, shape: Shape) -> Modules:
    """One filter set a channel; the kernel is (spatial, inputs, multiplier)."""
    found, (padding, front) = arrays(layer), _window(layer, shape)
    # Keras 3 names it `kernel`, files of its first releases `depthwise_kernel`.
    kernel = found.get("kernel", found.get("depthwise_kernel"))
    assert kernel is not None
    made = _convolution(layer, _depthwise(kernel), found.get("bias"), padding, kernel.shape[-2])
    return {**front, "": made}


def _depthwise_back(module: Any) -> Tensor:
    weight = module.weight
    return weight.reshape(module.groups, -1, *weight.shape[2:]).movedim((0, 1), (-2, -1))


def separable(layer: Any, shape: Shape) -> Modules:
    """A depthwise convolution, then a pointwise one with the bias."""
    found, (padding, front) = arrays(layer), _window(layer, shape)
    kernel, point = found["depthwise_kernel"], _filters_first(found["pointwise_kernel"])
    mixing = _CONVOLUTIONS[point.ndim - 2](point.shape[1], point.shape[0], 1, bias="bias" in found)
    return {
        **{f".{name.strip('_')}": module for name, module in front.items()},
        ".depthwise": _convolution(layer, _depthwise(kernel), None, padding, kernel.shape[-2]),
        ".pointwise": filled(mixing, {"weight": point, "bias": found.get("bias")}),
    }


def _separable_weights(modules: Modules) -> dict[str, Tensor]:
    point = modules[".pointwise"]
    kernels = {"depthwise_kernel": _depthwise_back(modules[".depthwise"])}
    return kernels | _with_bias("pointwise_kernel", _filters_last(point.weight), point)


def transposed(layer: Any, _shape: Shape) -> Modules:
    """Transposed convolution with a kernel of (spatial, filters, inputs); `same` crops the smaller half in front."""
    found = arrays(layer)
    weight = found["kernel"].movedim((-1, -2), (0, 1))
    if any(d != 1 for d in layer.dilation_rate) or layer.output_padding is not None:
        raise ModelError("dilation and output_padding of transposed convolutions are not converted")
    pairs = list(zip(layer.kernel_size, layer.strides, strict=True))
    crop = [max(k - s, 0) if layer.padding == "same" else 0 for k, s in pairs]
    made = _TRANSPOSED[weight.ndim - 2](
        weight.shape[0],
        weight.shape[1],
        layer.kernel_size,
        stride=layer.strides,
        padding=tuple(n // 2 for n in crop),
        output_padding=tuple(max(s - k, 0) for k, s in pairs),
        bias="bias" in found,
    )
    after = {"_crop": Pad(flat([(0, -(n % 2)) for n in crop]))} if any(n % 2 for n in crop) else {}
    return {"": filled(made, {"weight": weight, "bias": found.get("bias")}), **after}


def _transposed_weights(modules: Modules) -> dict[str, Tensor]:
    return _with_bias("kernel", modules[""].weight.movedim((0, 1), (-1, -2)), modules[""])


def batch_norm(layer: Any, shape: Shape) -> Modules:
    """Batch normalization; torch's momentum is the share of the new, Keras's that of the old."""
    found = arrays(layer)
    made = _NORMS[len(shape)](
        len(found["moving_mean"]), eps=layer.epsilon, momentum=round(1 - layer.momentum, 8)
    )
    names = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    return {"": filled(made, {name: found.get(key) for key, name in names.items()})}


def _batch_norm_weights(modules: Modules) -> dict[str, Tensor]:
    m: Any = modules[""]
    return {
        "gamma": m.weight,
        "beta": m.bias,
        "moving_mean": m.running_mean,
        "moving_variance": m.running_var,
    }


def channels_last_axis(layer: Any, shape: Shape) -> bool:
    """Whether a norm runs along the last axis."""
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) else layer.axis
    return axis in (-1, len(shape) - 1)


def _trailing(layer: Any, shape: Shape) -> tuple[int, ...]:
    axes = sorted(
        a % len(shape) for a in (layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis])
    )
    sizes = tuple(shape[a] for a in axes)
    if axes != list(range(axes[0], len(shape))) or None in sizes:
        raise ModelError("only norms over the last axes are converted")
    return tuple(int(n or 0) for n in sizes)


def layer_norm(layer: Any, shape: Shape) -> Modules:
    """Layer normalization over the last axes."""
    found = arrays(layer)
    made = nn.LayerNorm(list(_trailing(layer, shape)), eps=layer.epsilon)
    return {"": filled(made, {"weight": found.get("gamma"), "bias": found.get("beta")})}


def _norm_weights(modules: Modules) -> dict[str, Tensor]:
    m: Any = modules[""]
    return {"gamma": m.weight, "beta": m.bias}


def rms_norm(layer: Any, shape: Shape) -> Modules:
    """Root-mean-square normalization over the last axes."""
    made = nn.RMSNorm(list(_trailing(layer, shape)), eps=layer.epsilon)
    return {"": filled(made, {"weight": arrays(layer).get("scale")})}


def group_norm(layer: Any, shape: Shape) -> Modules:
    """Group normalization along the last axis."""
    channels = shape[-1]
    if not channels_last_axis(layer, shape) or channels is None:
        raise ModelError("only group norms over the last axis are converted")
    found = arrays(layer)
    made = nn.GroupNorm(channels if layer.groups == -1 else layer.groups, channels, eps=layer.epsilon)
    return {"": filled(made, {"weight": found.get("gamma"), "bias": found.get("beta")})}


class Embedding(nn.Embedding):
    """Rows of a table by number; numbers may come as floating point, as Keras hands them over."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the rows."""
        return super().forward(input if input.dtype in (torch.int32, torch.int64) else input.long())


def embedding(layer: Any, _shape: Shape) -> Modules:
    """A table of (numbers, features)."""
    table = arrays(layer)["embeddings"]
    return {"": filled(Embedding(table.shape[0], table.shape[1]), {"weight": table})}


def prelu(layer: Any, _shape: Shape) -> Modules:
    """ReLU with a learned slope for each channel, or one for all."""
    alpha = arrays(layer)["alpha"]
    if math.prod(alpha.shape[:-1]) != 1:
        raise ModelError("only slopes shared over the positions (shared_axes) are converted")
    return {"": filled(nn.PReLU(alpha.numel()), {"weight": alpha.reshape(-1)})}


def inner_dense(layer: Any, shape: Shape) -> Modules:
    """A dense layer at every position, which is what a dense layer does anyway."""
    if type(layer.layer).__name__ != "Dense" or layer.layer.activation.__name__ != "linear":
        raise ModelError("TimeDistributed is converted around a Dense layer without activation only")
    return dense(layer.layer, shape)


_CONV = Rule(
    convolution,
    "first",
    activated=True,
    weights=_convolution_weights,
    sizes=lambda m: {"filters": m[""].out_channels, "groups": m[""].groups},
)
_DEPTHWISE = Rule(
    depthwise,
    "first",
    activated=True,
    weights=lambda m: _with_bias("kernel", _depthwise_back(m[""]), m[""]),
    sizes=lambda m: {"depth_multiplier": m[""].out_channels // m[""].groups},
)
_SEPARABLE = Rule(
    separable,
    "first",
    activated=True,
    weights=_separable_weights,
    sizes=lambda m: {
        "filters": m[".pointwise"].out_channels,
        "depth_multiplier": m[".depthwise"].out_channels // m[".depthwise"].groups,
    },
)
_TRANSPOSE = Rule(
    transposed,
    "first",
    activated=True,
    weights=_transposed_weights,
    sizes=lambda m: {"filters": m[""].out_channels},
)

#: Layers with weights by the name of their class.
WEIGHTED: dict[str, Rule] = {
    "Dense": Rule(
        dense, activated=True, weights=_dense_weights, sizes=lambda m: {"units": m[""].out_features}
    ),
    "TimeDistributed": Rule(inner_dense, weights=None),
    "Conv1D": _CONV,
    "Conv2D": _CONV,
    "Conv3D": _CONV,
    "DepthwiseConv1D": _DEPTHWISE,
    "DepthwiseConv2D": _DEPTHWISE,
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
    "Conv1DTranspose": _TRANSPOSE,
    "Conv2DTranspose": _TRANSPOSE,
    "BatchNormalization": Rule(
        batch_norm, "first", weights=_batch_norm_weights, sizes=lambda _: {"center": True, "scale": True}
    ),
    "LayerNormalization": Rule(
        layer_norm, weights=_norm_weights, sizes=lambda _: {"center": True, "scale": True}
    ),
    "RMSNormalization": Rule(rms_norm, weights=lambda m: {"scale": m[""].weight}),
    "GroupNormalization": Rule(
        group_norm,
        "first",
        weights=_norm_weights,
        sizes=lambda m: {"groups": m[""].num_groups, "center": True, "scale": True},
    ),
    "Embedding": Rule(
        embedding,
        weights=lambda m: {"embeddings": m[""].weight},
        sizes=lambda m: {"output_dim": m[""].embedding_dim},
    ),
    "PReLU": Rule(prelu, "first", weights=None),
}
