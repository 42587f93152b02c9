"""Looking at a model while it trains: the best one is kept, and a run that no longer improves ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from tersor._check import positive
from tersor.errors import ArgumentError


@dataclass(frozen=True)
class Watch:
    """How a run is looked at.

    Attributes:
        score: quality of a model in eval mode, higher is better; it must not look at the data of a certificate.
        every: steps from one look to the next; the last step is looked at, too.
        patience: looks without a new best after which the run ends; None lets it go on.
        listen: called with (step, score) after each look.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> watch = Watch(lambda model: 0.0, every=10, patience=2)
        >>> watch.is_over([(10, 0.5), (20, 0.9), (30, 0.8)]), watch.is_over([(10, 0.9), (20, 0.5), (30, 0.8)])
        (False, True)
    """

    score: Callable[[nn.Module], float]
    every: int
    patience: int | None = None
    listen: Callable[[int, float], None] | None = None

    def __post_init__(self) -> None:
        positive("every", self.every)
        if self.patience is not None and self.patience < 1:
            raise ArgumentError(
                f"`patience` counts looks without a new best and is at least 1, got {self.patience!r}. "
                "Leave it out to train to the end."
            )

    def is_due(self, step: int, total: int) -> bool:
        """Say whether the model is looked at after `step` of `total` steps."""
        return step % self.every == 0 or step == total

    def is_over(self, looks: Sequence[tuple[int, float]]) -> bool:
        """Say whether the last `patience` looks brought no new best."""
        return self.patience is not None and len(looks) - 1 - best_look(looks) >= self.patience


def best_look(looks: Sequence[tuple[int, float]]) -> int:
    """Return which look had the highest score, the later of two equal ones; -1 where there was none.

    Example:
        >>> best_look([(10, 0.5), (20, 0.9), (30, 0.9)])
        2
    """
    return max(range(len(looks)), key=lambda index: (looks[index][1], index), default=-1)
