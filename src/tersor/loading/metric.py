"""A Metric: how quality is measured, and in which direction it is good."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Metric:
    """A quality of outputs against targets.

    Attributes:
        name: shown to the user.
        value: metric of (outputs, targets) over a whole split.
        scores: score of each sample, shape (samples,), whose mean is the metric; None where it does not decompose.
        bounds: lowest and highest possible score of one sample; (0, 1) for correctness.
        higher_is_better: direction.
    """

    name: str
    value: Callable[[Tensor, Tensor], float]
    scores: Callable[[Tensor, Tensor], Tensor] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
