"""A Metric: how quality is measured, and in which direction it is good."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tersor.loading.recount import Recount


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
        recount: for a metric of a whole set, its values where the samples of (outputs, targets) count so many times;
            None where only outputs tell. Redrawn sets of samples then need no pass over the outputs.
    """

    name: str
    value: Callable[[Tensor, Tensor], float]
    scores: Callable[[Tensor, Tensor], Tensor] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    of_model: Callable[[Any, Iterable[Any]], float] | None = None
    recount: Callable[[Tensor, Tensor], Recount] | None = None
