"""How a training run behaves, beside the model, the data, the loss and the optimizer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from tersor._check import positive
from tersor.errors import ArgumentError
from tersor.recovery.arithmetic import PLAIN, Arithmetic
from tersor.recovery.team import Team
from tersor.recovery.watch import Watch

#: Called after each step with the step (from 1), the number of steps, and the loss.
OnStep: TypeAlias = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Settings:
    """The dials of the training loop. The defaults suit a short recovery.

    Attributes:
        clip: largest norm of all gradients together; None does not clip.
        average: decay of a running mean of the weights, which then replaces them at the end; None keeps none.
        hold: 0/1 masks by parameter name; entries with 0 are set to zero and stay there (pruned weights).
        in_place: train the given model itself instead of a copy.
        seed: of dropout and other random operations of the model.
        checkpoint: file to continue from and to keep up to date; None keeps the state in memory only.
        every: steps between two snapshots, for the guard and for the checkpoint.
        patience: rollbacks before a diverging run is given up.
        watch: looks at the model now and then, keeps the best and ends a run that no longer improves.
        layer_decay: factor on the learning rate from each level of layers to the one below it, in (0, 1].
        team: divides each batch among processes; None trains in this one.
        dropout: whether layers that leave things out at random (dropout, stochastic depth) do so.
        arithmetic: how forward and backward passes compute; `quickest` measures what this machine is best at.
        on_step: called with (step, steps, loss) after each step; progress bars live outside.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> Settings(clip=1.0).patience
        5
    """

    clip: float | None = 5.0
    average: float | None = None
    hold: Mapping[str, Tensor] = field(default_factory=dict)
    in_place: bool = False
    seed: int = 0
    checkpoint: Path | None = None
    every: int = 100
    patience: int = 5
    watch: Watch | None = None
    layer_decay: float = 1.0
    team: Team | None = None
    dropout: bool = True
    arithmetic: Arithmetic = PLAIN
    on_step: OnStep | None = None

    def __post_init__(self) -> None:
        if self.clip is not None:
            positive("clip", self.clip)
        if self.average is not None and not 0 < self.average < 1:
            raise ArgumentError(f"`average` is a decay in (0, 1), got {self.average!r}. 0.99 is usual.")
        positive("every", self.every)
