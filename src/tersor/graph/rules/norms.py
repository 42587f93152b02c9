"""Normalisations: statistics over units that are kept."""

from torch import Tensor

from tersor.graph.labels import Call, Labels
from tersor.graph.rules.registry import rule

MEETS = "meets a norm that cannot change"


@rule("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm", "_fused_layer_norm", statistic=True)
def layer_norm(labels: Labels, call: Call) -> None:
    """The scale and the shift share the cells of the normalised axes."""
    source, count = call["input"], len(call["normalized_shape"])
    for scale in (call["weight"], call.get("bias")):
        for offset in range(count):
            axis = source.dim() - count + offset
            if isinstance(scale, Tensor):
                labels.unify(labels.of(source)[axis], labels.of(scale)[offset], MEETS)
    _put_all(labels, call, labels.of(source))


@rule(
    "native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "cudnn_batch_norm",
    "_batch_norm_with_update", "_batch_norm_no_update", "batch_norm", "native_instance_norm",
    statistic=True,
)  # fmt: skip
def batch_norm(labels: Labels, call: Call) -> None:
    """All four vectors share the cells of the channels."""
    source = call["input"]
    for name in ("weight", "bias", "running_mean", "running_var"):
        vector = call.get(name)
        if isinstance(vector, Tensor) and vector.dim() == 1:
            labels.unify(labels.of(source)[1], labels.of(vector)[0], MEETS)
    _put_all(labels, call, labels.of(source))


@rule("native_group_norm", "group_norm", statistic=True)
def group_norm(labels: Labels, call: Call) -> None:
    """Channels split into (group, channel in it)."""
    source, groups = call["input"], int(call["group"] if "group" in call.args else call["num_groups"])
    for scale in (call["weight"], call["bias"]):
        if isinstance(scale, Tensor):
            labels.unify(labels.of(source)[1], labels.of(scale)[0], MEETS)
    if groups > 1:
        channels = int(source.shape[1])
        split = labels.reshape([labels.of(source)[1]], [channels], [groups, channels // groups])
        for output in call.outputs:
            labels.factors[id(output)] = split[0]
    _put_all(labels, call, labels.of(source))


def _put_all(labels: Labels, call: Call, axes: list) -> None:
    for i, out in enumerate(call.outputs):
        labels.put(out, axes) if i == 0 else labels.put_fixed(out)


@rule("_weight_norm_interface", statistic=True)
def weight_norm(labels: Labels, call: Call) -> None:
    """Direction and length share the axis that is not normalised over."""
    direction, length, dim = call["v"], call["g"], int(call["dim"])
    if length.dim() == direction.dim():
        labels.unify(labels.of(direction)[dim], labels.of(length)[dim], MEETS)
    weight, norms = call.outputs
    labels.put(weight, labels.of(direction))
    labels.put(norms, labels.of(length))
