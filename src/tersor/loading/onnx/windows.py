"""ONNX operators that work on the neighbourhood of a position: pooling, padding, resizing."""

from typing import Any

from torch import nn

from tersor.errors import ModelError
from tersor.loading.onnx.values import Build, Call, Convert, Value
from tersor.loading.onnx.weighted import edges, padded_input
from tersor.loading.pieces import Pad, Reduce

_MAX = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_MEAN = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


def _pad(build: Build, call: Call) -> Value:
    pads = [int(n) for n in (call.get("pads") if call.optional(1) is None else call.known(1))]
    value = 0.0 if call.optional(2) is None else float(call.known(2).item())
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(
        call.get("mode", b"constant").decode()
    )
    if mode is None or call.optional(3) is not None:
        raise ModelError("padding that wraps, or names axes, is not converted")
    rank = len(pads) // 2
    pairs = [(pads[i], pads[i + rank]) for i in range(rank)]
    first = next((i for i, pair in enumerate(pairs) if pair != (0, 0)), rank - 1)
    amounts = tuple(n for pair in reversed(pairs[first:]) for n in pair)
    return build.module(call.name, Pad(amounts, value, mode), build.tensor(call.input(0)))


def _max_pool(build: Build, call: Call) -> Value:
    kernel = [int(n) for n in call.get("kernel_shape")]
    if call.outputs > 1:
        raise ModelError("the indices of MaxPool are not converted")
    amounts = edges(call, len(kernel), kernel, call.get("#spatial"))
    node, padding = padded_input(build, call, amounts, float("-inf"))
    made = _MAX[len(kernel)](
        tuple(kernel),
        tuple(call.get("strides", [1] * len(kernel))),
        padding,
        tuple(call.get("dilations", [1] * len(kernel))),
        ceil_mode=bool(call.get("ceil_mode", 0)),
    )
    return build.module(call.name, made, node)


def _mean_pool(build: Build, call: Call) -> Value:
    kernel = [int(n) for n in call.get("kernel_shape")]
    amounts = edges(call, len(kernel), kernel, call.get("#spatial"))
    counted_in = bool(call.get("count_include_pad", 0))
    if any(a != b for a, b in amounts) and not counted_in:
        raise ModelError("a mean over uneven padding is not converted")
    node, padding = padded_input(build, call, amounts)
    made = _MEAN[len(kernel)](
        tuple(kernel),
        tuple(call.get("strides", [1] * len(kernel))),
        padding,
        ceil_mode=bool(call.get("ceil_mode", 0)),
        count_include_pad=counted_in,
    )
    return build.module(call.name, made, node)


def _global(how: str) -> Convert:
    def convert(build: Build, call: Call) -> Value:
        rank = int(call.get("#rank") or 4)
        return build.module(call.name, Reduce(how, tuple(range(2, rank)), True), build.tensor(call.input(0)))

    return convert


_MODES = {
    ("nearest", "asymmetric"): ("nearest", None),
    ("nearest", "half_pixel"): ("nearest-exact", None),
    ("linear", "half_pixel"): ("bilinear", False),
    ("linear", "pytorch_half_pixel"): ("bilinear", False),
    ("linear", "align_corners"): ("bilinear", True),
    ("cubic", "half_pixel"): ("bicubic", False),
    ("cubic", "align_corners"): ("bicubic", True),
}


def _resize(build: Build, call: Call) -> Value:
    how = (
        call.get("mode", b"nearest").decode(),
        call.get("coordinate_transformation_mode", b"half_pixel").decode(),
    )
    if how not in _MODES:
        raise ModelError(f"Resize with {how[0]} and {how[1]} is not converted")
    mode, corners = _MODES[how]
    scales, wanted = call.optional(2), call.optional(3)
    options: dict[str, Any] = {"mode": mode} | ({} if corners is None else {"align_corners": corners})
    if wanted is not None and wanted.constant is not None:
        options["size"] = tuple(int(n) for n in wanted.constant[2:])
    elif scales is not None and scales.constant is not None and scales.constant.size:
        options["scale_factor"] = tuple(float(n) for n in scales.constant[2:])
    else:
        raise ModelError("Resize to a size that is computed is not converted")
    return build.module(call.name, nn.Upsample(**options), build.tensor(call.input(0)))


def _depth_to_space(build: Build, call: Call) -> Value:
    if call.get("mode", b"DCR") != b"CRD":
        raise ModelError("DepthToSpace is converted with mode=CRD (as torch's pixel_shuffle) only")
    return build.module(call.name, nn.PixelShuffle(int(call.get("blocksize"))), build.tensor(call.input(0)))


#: Operators of windows.
WINDOWS: dict[str, Convert] = {
    "Pad": _pad,
    "MaxPool": _max_pool,
    "AveragePool": _mean_pool,
    "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("amax"),
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
}
