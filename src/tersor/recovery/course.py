"""The dials of training from end to end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tersor._check import one_of, positive
from tersor.errors import ArgumentError
from tersor.loading.limit import parse_budget
from tersor.optimizers.situations import STARTS
from tersor.recovery.settings import OnStep
from tersor.recovery.team import Team
from tersor.recovery.views import Augment

#: What `Course.precision` may be.
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Course:
    """The dials of `train` and `distill` beside data, length and optimizer.

    Attributes:
        budget: time for all of it, such as `"30m"`, or seconds; with a number of passes, whatever ends first.
        start: `scratch` (fresh weights), `trained` (weights of another task) or `compressed` (a cut network); it
            decides the usual learning rates.
        lr: peak learning rate for an optimizer given by name; None takes the usual one, or that of the trials.
        batch: samples per step; None takes a 32nd of the training samples, between 16 and 128.
        head_epochs: passes in which the last layer alone is trained, before all of it: linear probing, then
            fine-tuning, which keeps a fresh head from tearing up trained features.
        layer_decay: factor on the learning rate from each level of layers to the one below it, in (0, 1].
        average: decay of a running mean of the weights, which replaces them; None keeps none.
        patience: looks at the search split (one after each pass, at most 50 in all) without a new best after which
            training ends; None trains to the end. The best weights are kept in any case.
        augment: makes random views of inputs; None shows them as stored.
        views: number of different views of a sample.
        metric: how quality is measured; inferred from the labels when left out.
        leave_out_copies: leave out of train and search what the sealed samples hold too, instead of refusing.
        precision: `float32`; `bfloat16` for products of matrices and convolutions; or `auto`, which takes what is
            quickest on this machine. None is `auto` with a budget, and `float32` without one or in a team.
        clip: largest norm of all gradients together.
        seed: of every random choice.
        folder: keeps the state of the run, and continues the one that it finds there.
        team: divides each batch among processes.
        on_step: called with (step, steps, loss) after each step.
        say: told in words what was decided and seen.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> Course(layer_decay=0.8, head_epochs=1).start
        'scratch'

    Source:
        Head first: Kumar et al., Fine-Tuning can Distort Pretrained Features, ICLR 2022.
        https://arxiv.org/abs/2202.10054
    """

    budget: str | float | None = None
    start: str = "scratch"
    lr: float | None = None
    batch: int | None = None
    head_epochs: float = 0.0
    layer_decay: float = 1.0
    average: float | None = None
    patience: int | None = None
    augment: Augment | None = None
    views: int = 8
    metric: str | None = None
    leave_out_copies: bool = False
    precision: str | None = None
    clip: float = 5.0
    seed: int = 0
    folder: Path | None = None
    team: Team | None = None
    on_step: OnStep | None = None
    say: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        one_of("start", self.start, STARTS)
        parse_budget(self.budget)
        if self.precision is not None:
            one_of("precision", self.precision, PRECISIONS)
        for name, value in (("lr", self.lr), ("batch", self.batch), ("patience", self.patience)):
            if value is not None:
                positive(name, value)
        if self.head_epochs < 0 or not 0 < self.layer_decay <= 1:
            raise ArgumentError(
                f"`head_epochs` is at least 0 and `layer_decay` in (0, 1], got {self.head_epochs!r} and "
                f"{self.layer_decay!r}."
            )

    def told(self, text: str) -> None:
        """Say `text` to whoever listens."""
        if self.say:
            self.say(text)
