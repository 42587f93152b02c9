"""Tensors made in the forward pass: constant ones take any size, others depend on their positions."""

from tersor.graph.labels import Call, Labels
from tersor.graph.rules.registry import rule


@rule(
    "zeros", "ones", "empty", "full", "new_zeros", "new_ones", "new_full", "new_empty", "empty_strided",
    "new_empty_strided", "zeros_like", "ones_like", "empty_like", "full_like", "empty_permuted",
)  # fmt: skip
def constant(labels: Labels, call: Call) -> None:
    """A constant has new cells on every axis; those made like a tensor have its cells."""
    if call.name.endswith("_like"):
        labels.put(call.out, labels.of(call["self"]))
    else:
        labels.put_fresh(call.out)


@rule(
    "arange", "linspace", "logspace", "eye", "rand", "randn", "randint", "randperm", "scalar_tensor", "tril_indices",
    "triu_indices", "hann_window", "_local_scalar_dense", "item", "is_nonzero", "_is_all_true", "_is_any_true",
    "hamming_window", "kaiser_window", "blackman_window", "equal", "is_same_size", "_has_compatible_shallow_copy_type",
    "_assert_async", "_assert_scalar", "sym_size", "is_floating_point", "vander", "complex_out", "record_stream",
    "_assert_tensor_metadata",
)  # fmt: skip
def content(labels: Labels, call: Call) -> None:
    """The content depends on positions: no axis can change."""
    for out in call.outputs:
        labels.put_fixed(out)


@rule("rand_like", "randn_like", "randint_like")
def noise(labels: Labels, call: Call) -> None:
    """Noise drawn in the order of positions: no axis can change."""
    labels.freeze_tensor(call["self"], "gets noise drawn by position")
    labels.put_fixed(call.out)
