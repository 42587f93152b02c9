"""The Keras layers without weights of their own, as a table: pooling, shapes, activations, noise."""

from typing import Any

import numpy as np
import torch
from torch import nn

from tersor.errors import ModelError
from tersor.loading.keras.layers import spatial
from tersor.loading.keras.rules import Modules, Rule, Shape
from tersor.loading.padding import flat, padded, same
from tersor.loading.pieces import Pad, Permute, Reduce, Reshape, Scale

_MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_MEAN = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


def _edges(layer: Any, shape: Shape) -> list[tuple[int, int]]:
    size = layer.pool_size
    if layer.padding == "valid":
        return [(0, 0)] * len(size)
    return same(spatial(layer, shape), size, layer.strides, (1,) * len(size))


def max_pool(layer: Any, shape: Shape) -> Modules:
    """Largest value of each window; what lies outside does not count."""
    edges, size = _edges(layer, shape), layer.pool_size
    front: dict[str, nn.Module] = {}
    # A window that only sticks out behind is what torch calls ceil_mode.
    behind = any(after for _, after in edges) and not any(before for before, _ in edges)
    padding: tuple[int, ...] = (0,) * len(size)
    if not behind:
        padding, front = padded(edges, float("-inf"))
    made = _MAX[len(size)](tuple(size), tuple(layer.strides), padding, ceil_mode=behind)
    return {**front, "": made}


def mean_pool(layer: Any, shape: Shape) -> Modules:
    """Mean of the values of each window that lie inside."""
    edges, size = _edges(layer, shape), layer.pool_size
    behind = any(after for _, after in edges) and not any(before for before, _ in edges)
    if not behind and any(before != after for before, after in edges):
        raise ModelError("padding='same' that is larger behind than in front is not converted for means")
    padding = tuple(0 if behind else before for before, _ in edges)
    made = _MEAN[len(size)](
        tuple(size), tuple(layer.strides), padding, ceil_mode=behind, count_include_pad=False
    )
    return {"": made}


def _global(how: str, layer: Any, shape: Shape) -> Modules:
    return {"": Reduce(how, tuple(range(2, len(shape))), bool(layer.keepdims))}


def flatten(layer: Any, shape: Shape) -> Modules:
    """All axes but the batch become one, in Keras's order."""
    if layer.data_format == "channels_first" and len(shape) > 2:
        raise ModelError("Flatten of channels-first data is not converted")
    return {"": Reshape((1,)) if len(shape) == 1 else nn.Flatten(1)}


def _open(shape: tuple[int | None, ...]) -> tuple[int, ...]:
    if sum(n is None for n in shape) > 1:
        raise ModelError("a reshape with two open sizes is not converted")
    return tuple(-1 if n is None else int(n) for n in shape)


def reshape(layer: Any, _shape: Shape) -> Modules:
    """Another shape for every sample."""
    return {"": Reshape(_open(tuple(layer.target_shape)))}


def zero_padding(layer: Any, _shape: Shape) -> Modules:
    """Zeros around the spatial axes."""
    pairs = [layer.padding] if isinstance(layer.padding[0], int) else layer.padding
    return {"": Pad(flat([(int(a), int(b)) for a, b in pairs]))}


def cropping(layer: Any, _shape: Shape) -> Modules:
    """Spatial edges cut off."""
    pairs = [layer.cropping] if isinstance(layer.cropping[0], int) else layer.cropping
    return {"": Pad(flat([(-int(a), -int(b)) for a, b in pairs]))}


def up_sampling(layer: Any, shape: Shape) -> Modules:
    """Larger images by repetition or between neighbours."""
    mode = layer.interpolation if len(shape) == 4 else "nearest"
    if mode not in ("nearest", "bilinear"):
        raise ModelError(f"the interpolation {mode!r} is not converted; known are nearest and bilinear")
    size = layer.size if isinstance(layer.size, tuple | list) else (layer.size,)
    options = {} if mode == "nearest" else {"align_corners": False}
    return {"": nn.Upsample(scale_factor=tuple(float(n) for n in size), mode=mode, **options)}


def rescaling(layer: Any, _shape: Shape) -> Modules:
    """`x * scale + offset`."""
    scale, offset = (torch.tensor(np.asarray(v), dtype=torch.float32) for v in (layer.scale, layer.offset))
    return {"": Scale(scale, offset)}


def normalization(layer: Any, _shape: Shape) -> Modules:
    """Mean 0 and deviation 1 by the statistics that the layer has seen."""
    if layer.invert:
        raise ModelError("Normalization with invert=True is not converted")
    mean, variance = (
        torch.tensor(np.asarray(v.cpu() if isinstance(v, torch.Tensor) else v)) for v in _moments(layer)
    )
    deviation = variance.float().sqrt().clamp(min=1e-7)
    return {"": Scale(1 / deviation, -mean.float() / deviation)}


def _moments(layer: Any) -> tuple[Any, Any]:
    return layer.mean, layer.variance


def relu(layer: Any, _shape: Shape) -> Modules:
    """ReLU with its slope, or its ceiling."""
    slope, ceiling = float(layer.negative_slope), layer.max_value
    if float(layer.threshold) != 0 or (ceiling is not None and slope):
        raise ModelError("ReLU with a threshold, or with both a slope and a ceiling, is not converted")
    if ceiling is not None:
        return {"": nn.ReLU6() if float(ceiling) == 6 else nn.Hardtanh(0.0, float(ceiling))}
    return {"": nn.LeakyReLU(slope) if slope else nn.ReLU()}


def softmax(layer: Any, shape: Shape) -> Modules:
    """Shares along one axis."""
    if not isinstance(layer.axis, int):
        raise ModelError("Softmax over several axes is not converted")
    return {"": nn.Softmax(layer.axis % len(shape))}


_NOISE = Rule(lambda _layer, _shape: {}, "same")
_DROPOUT = Rule(lambda layer, _shape: {"": nn.Dropout(float(layer.rate))}, "same")
_MAX_POOL, _MEAN_POOL = Rule(max_pool, "first"), Rule(mean_pool, "first")
_GLOBAL_MEAN = Rule(lambda layer, shape: _global("mean", layer, shape), "first")
_GLOBAL_MAX = Rule(lambda layer, shape: _global("amax", layer, shape), "first")
_ZERO_PADDING, _CROPPING = Rule(zero_padding, "first"), Rule(cropping, "first")
_UP_SAMPLING = Rule(up_sampling, "first")


def _reshaped(modules: Modules) -> dict[str, object]:
    shape: Any = modules[""]
    return {"target_shape": tuple(shape.shape)}


#: Layers without weights by the name of their class.
PLAIN: dict[str, Rule] = {
    "MaxPooling1D": _MAX_POOL,
    "MaxPooling2D": _MAX_POOL,
    "AveragePooling1D": _MEAN_POOL,
    "AveragePooling2D": _MEAN_POOL,
    "GlobalAveragePooling1D": _GLOBAL_MEAN,
    "GlobalAveragePooling2D": _GLOBAL_MEAN,
    "GlobalMaxPooling1D": _GLOBAL_MAX,
    "GlobalMaxPooling2D": _GLOBAL_MAX,
    "Flatten": Rule(flatten),
    "Reshape": Rule(reshape, sizes=_reshaped),
    "Permute": Rule(lambda layer, _: {"": Permute((0, *layer.dims))}),
    "ZeroPadding1D": _ZERO_PADDING,
    "ZeroPadding2D": _ZERO_PADDING,
    "Cropping1D": _CROPPING,
    "Cropping2D": _CROPPING,
    "UpSampling1D": _UP_SAMPLING,
    "UpSampling2D": _UP_SAMPLING,
    "Rescaling": Rule(rescaling),
    "Normalization": Rule(normalization, weights=None),
    "Activation": Rule(lambda _layer, _shape: {}, "same", activated=True),
    "ReLU": Rule(relu, "same"),
    "LeakyReLU": Rule(lambda layer, _: {"": nn.LeakyReLU(float(layer.negative_slope))}, "same"),
    "ELU": Rule(lambda layer, _: {"": nn.ELU(float(layer.alpha))}, "same"),
    "Softmax": Rule(softmax),
    "Dropout": _DROPOUT,
    "SpatialDropout1D": _DROPOUT,
    "SpatialDropout2D": _DROPOUT,
    "GaussianDropout": _NOISE,
    "GaussianNoise": _NOISE,
    "AlphaDropout": _NOISE,
    "ActivityRegularization": _NOISE,
    "Identity": _NOISE,
}
