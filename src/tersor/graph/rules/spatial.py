"""Pooling, resizing and padding: batch and channels pass, space stays."""

from tersor.graph.labels import Call, Labels
from tersor.graph.rules.registry import rule

POOLS = [
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_linear1d",
    "upsample_trilinear3d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "mkldnn_max_pool2d",
    "fractional_max_pool2d",
]


@rule(*POOLS)
def pool(labels: Labels, call: Call) -> None:
    """Freeze the axes after the channels."""
    source = call.tensors[0]
    space = {"1": 1, "2": 2, "3": 3}[next(c for c in call.name if c in "123")]
    axes = labels.of(source)
    for axis in axes[source.dim() - space :]:
        labels.freeze(axis, f"is the space of `{call.name}`")
    for out in call.outputs:
        labels.put(out, [*axes[: source.dim() - space], *([] for _ in range(space))])


@rule("constant_pad_nd", "pad", "_pad_circular")
def pad(labels: Labels, call: Call) -> None:
    """Freeze the axes that grow."""
    source, out = call["self"], call.out
    axes = labels.of(source)
    grown = len(call["pad"]) // 2
    for back in range(1, grown + 1):
        if any(int(p) for p in call["pad"][2 * back - 2 : 2 * back]):
            labels.freeze(axes[-back], "is padded")
            axes[-back] = []
    labels.put(out, axes)


@rule("grid_sampler_2d", "grid_sampler_3d")
def grid_sample(labels: Labels, call: Call) -> None:
    """Batch and channels pass, the grid stays."""
    source, grid = call["input"], call["grid"]
    for axis in labels.of(source)[2:] + labels.of(grid)[1:]:
        labels.freeze(axis, "is sampled on a grid")
    batch = labels.unify(labels.of(source)[0], labels.of(grid)[0], "is sampled on a grid")
    labels.put(call.out, [batch, labels.of(source)[1], *([] for _ in range(call.out.dim() - 2))])


@rule("im2col")
def im2col(labels: Labels, call: Call) -> None:
    """Channels times kernel positions come out as one axis."""
    source, out = call["self"], call.out
    axes = labels.of(source)
    for axis in axes[-2:]:
        labels.freeze(axis, "is the space of `unfold`")
    channels, window = int(source.shape[-3]), int(out.shape[-2]) // int(source.shape[-3])
    merged = labels.reshape([axes[-3], []], [channels, window], [channels * window])
    labels.put(out, [*axes[:-3], merged[0], []])


@rule("col2im")
def col2im(labels: Labels, call: Call) -> None:
    """Split channels times kernel positions; the positions stay."""
    source, out = call["self"], call.out
    axes, channels = labels.of(source), int(out.shape[-3])
    split = labels.reshape([axes[-2]], [int(source.shape[-2])], [channels, int(source.shape[-2]) // channels])
    labels.freeze(split[1], "is the kernel of `fold`")
    labels.freeze(axes[-1], "is the space of `fold`")
    labels.put(out, [*axes[:-2], split[0], [], []])


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def pixel_shuffle(labels: Labels, call: Call) -> None:
    """Channels split into (channel, square of the factor), or the reverse."""
    source, out = call["self"], call.out
    axes, before, after = labels.of(source), int(source.shape[-3]), int(out.shape[-3])
    for axis in axes[-2:]:
        labels.freeze(axis, f"is the space of `{call.name}`")
    if call.name == "channel_shuffle":
        groups = int(call["groups"])
        split = labels.reshape([axes[1]], [before], [groups, before // groups], [True, False])
        joined = labels.reshape([split[1], split[0]], [before // groups, groups], [before])
        labels.put(out, [axes[0], joined[0], *([] for _ in range(out.dim() - 2))])
        return
    if after < before:
        split = labels.reshape([axes[-3]], [before], [after, before // after], [False, True])
        channels = split[0]
    else:
        channels = labels.reshape([axes[-3], []], [before, after // before], [after])[0]
    labels.put(out, [*axes[:-3], channels, [], []])
