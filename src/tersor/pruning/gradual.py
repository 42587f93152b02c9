"""Zeros that grow in number while a model trains: how many at each step, and which."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tersor._check import fraction, one_of
from tersor.errors import ArgumentError
from tersor.pruning.unstructured import quantile


@dataclass(frozen=True, slots=True)
class Cubic:
    r"""Ratio of zeros at each step: fast while many weights are idle, slow towards the end.

    $$s_t = s_f + (s_0 - s_f) \Bigl(1 - \frac{t - t_0}{t_1 - t_0}\Bigr)^3, \qquad t_0 \le t \le t_1$$

    Attributes:
        final: ratio from step `end` on, in [0, 1).
        begin: first step that prunes.
        end: step that reaches `final`.
        every: steps between two changes of the masks.
        initial: ratio at `begin`.

    Raises:
        ArgumentError: if a ratio is no fraction, or not `0 <= begin < end` and `every >= 1`.

    Example:
        >>> [round(Cubic(final=0.8, end=100).ratio(step), 3) for step in (0, 50, 100, 200)]
        [0.0, 0.7, 0.8, 0.8]

    Source:
        Zhu and Gupta, To prune, or not to prune: exploring the efficacy of pruning for model compression,
        2017, equation 1.
    """

    final: float
    begin: int = 0
    end: int = 1000
    every: int = 1
    initial: float = 0.0

    def __post_init__(self) -> None:
        fraction("final", self.final)
        fraction("initial", self.initial)
        if not (0 <= self.begin < self.end and self.every >= 1):
            raise ArgumentError(f"`Cubic` needs 0 <= begin < end and every >= 1, got {self!r}.")

    def ratio(self, step: int) -> float:
        """Return the ratio of zeros that step `step` should have."""
        step = min(max(step, self.begin), self.end)
        step = self.end if step == self.end else self.begin + (step - self.begin) // self.every * self.every
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return self.final + (self.initial - self.final) * left**3


def tightened(
    weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], ratio: float, *, scope: str = "global"
) -> dict[str, Tensor]:
    """Return masks that drop the smallest `ratio` of the weights; those dropped before stay so.

    Args:
        weights: values now, by parameter name.
        masks: masks now, by the same names, True where a weight stays.
        ratio: fraction dropped afterwards; never fewer than before.
        scope: `global` ranks all weights together, `layer` each parameter alone.

    Example:
        >>> weights = {"w": torch.tensor([[3.0, 1.0, 2.0, 4.0]])}
        >>> tightened(weights, {"w": weights["w"] > 0}, 0.5)["w"].tolist()
        [[True, False, False, True]]
    """
    fraction("ratio", ratio)
    one_of("scope", scope, ("global", "layer"))
    # Entries masked before rank below every other, also below live weights that are zero by chance.
    sizes = {name: torch.where(masks[name], w.detach().abs().float(), -1.0) for name, w in weights.items()}
    together = quantile(list(sizes.values()), ratio) if scope == "global" else 0.0
    limits = {
        name: together if scope == "global" else quantile([size], ratio) for name, size in sizes.items()
    }
    return {name: size >= max(limits[name], 0.0) for name, size in sizes.items()}
