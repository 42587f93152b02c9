"""A Metric: how quality is measured, and in which direction it is good."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Metric:
    """A quality of outputs against targets.

    Attributes:
        name: shown to the user.
        value: metric of (outputs, targets) over a whole split.
        scores: score of each sample, shape (samples,), higher is better; its mean is the metric, or the negative of
            the metric where lower is better, so it may be taken batch by batch. None where it does not decompose.
        bounds: lowest and highest possible score of one sample; (0, 1) for correctness.
        higher_is_better: direction of `value`.
        of_model: metric of (model, loader), for metrics that need the model itself; None for all others.
        parts: for a metric of a whole set that sums over its samples decide, what each sample adds to them, shape
            (samples, sums); None for others. Redrawn sets of samples then need no outputs.
        of_sums: metric of these sums, shape (sums,); goes with `parts`.
    """

    name: str
    value: Callable[[Tensor, Tensor], float]
    scores: Callable[[Tensor, Tensor], Tensor] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    of_model: Callable[[Any, Iterable[Any]], float] | None = None
    parts: Callable[[Tensor, Tensor], Tensor] | None = None
    of_sums: Callable[[Tensor], float] | None = None
