"""Padding `same` of Keras and ONNX as amounts and layers of torch."""

from collections.abc import Sequence

from torch import nn

from tersor.errors import ModelError
from tersor.loading.pieces import Pad


def same(
    sizes: Sequence[int | None], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the padding before and after each spatial axis.

    The output has `ceil(n / s)` positions; of the padding `max((ceil(n / s) - 1) s + (k - 1) d + 1 - n, 0)` the
    smaller half comes first.

    Args:
        sizes: of the spatial axes; None where open.
        kernel: extent of the window.
        stride: its step.
        dilation: distance of its elements.

    Raises:
        ModelError: if an axis is open and its stride is not 1, because then the padding depends on its size.

    Example:
        >>> same((8,), (3,), (2,), (1,)), same((None,), (3,), (1,), (1,))
        ([(0, 1)], [(1, 1)])
    """
    amounts = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        if size is None and s != 1:
            raise ModelError(
                "padding='same' with a stride needs a fixed input size; give keras.Input one, such as (224, 224, 3)"
            )
        total = (k - 1) * d if size is None else max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        amounts.append((total // 2, total - total // 2))
    return amounts


def flat(amounts: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return amounts in the order of `torch.nn.functional.pad`: the last axis first.

    Example:
        >>> flat([(1, 2), (3, 4)])
        (3, 4, 1, 2)
    """
    return tuple(n for pair in reversed(amounts) for n in pair)


def padded(
    amounts: Sequence[tuple[int, int]], value: float = 0.0
) -> tuple[tuple[int, ...], dict[str, nn.Module]]:
    """Return the symmetric padding that a torch layer takes itself, and a layer in front for any other."""
    if all(before == after for before, after in amounts):
        return tuple(before for before, _ in amounts), {}
    return tuple(0 for _ in amounts), {"_pad": Pad(flat(amounts), value)}
