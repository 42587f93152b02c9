"""Learning-rate schedules: a factor of the peak for every step."""

import math
from dataclasses import dataclass
from typing import Protocol

from tersor._check import fraction


class Schedule(Protocol):
    """A frozen object that says how large the learning rate is at a step."""

    def __call__(self, step: int, total: int, /) -> float:
        """Return the factor on the peak learning rate at `step` of `total`, in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Cosine:
    r"""Rise linearly, then fall along half a cosine.

    $$f(t) = (t + 1) / w \;\; (t < w), \qquad
      f(t) = a + (1 - a) \tfrac{1}{2} \Bigl(1 + \cos \pi \frac{t - w}{n - w}\Bigr)$$

    with `w = round(warmup * n)`. Without warm-up the first step is at the peak.

    Attributes:
        warmup: fraction of the steps that rise, in [0, 1).
        floor: a, the factor at the end, in [0, 1).

    Raises:
        ArgumentError: if a value is outside [0, 1).

    Example:
        >>> [round(Cosine()(step, 4), 3) for step in range(4)]
        [1.0, 0.854, 0.5, 0.146]

    Source:
        Loshchilov and Hutter, SGDR, ICLR 2017, equation 5, one period. https://arxiv.org/abs/1608.03983
    """

    warmup: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        fraction("warmup", self.warmup)
        fraction("floor", self.floor)

    def __call__(self, step: int, total: int) -> float:
        """Return the factor on the peak learning rate at `step` of `total`."""
        rising = round(self.warmup * total)
        if step < rising:
            return (step + 1) / rising
        falling = (step - rising) / max(total - rising, 1)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(falling, 1.0)))


@dataclass(frozen=True, slots=True)
class OneCycle:
    """Rise along a cosine from `start` to the peak, then fall along a cosine to zero.

    Attributes:
        rise: fraction of the steps that rise, in [0, 1).
        start: factor of the first step, in [0, 1).

    Raises:
        ArgumentError: if a value is outside [0, 1).

    Example:
        >>> [round(OneCycle(rise=0.5, start=0.0)(step, 4), 3) for step in range(4)]
        [0.0, 0.5, 1.0, 0.5]

    Source:
        Smith and Topin, Super-Convergence, 2018, section 3, with cosines for lines.
        https://arxiv.org/abs/1708.07120
    """

    rise: float = 0.3
    start: float = 0.04

    def __post_init__(self) -> None:
        fraction("rise", self.rise)
        fraction("start", self.start)

    def __call__(self, step: int, total: int) -> float:
        """Return the factor on the peak learning rate at `step` of `total`."""
        rising = round(self.rise * total)
        if step < rising:
            return self.start + (1 - self.start) * 0.5 * (1 - math.cos(math.pi * step / rising))
        falling = (step - rising) / max(total - rising, 1)
        return 0.5 * (1 + math.cos(math.pi * min(falling, 1.0)))


@dataclass(frozen=True, slots=True)
class Constant:
    """Keep the peak.

    Example:
        >>> Constant()(3, 10)
        1.0
    """

    def __call__(self, _step: int, _total: int) -> float:
        """Return 1."""
        return 1.0
