"""The recovery ladder: bring a compressed model back to what the original answers."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from tersor._check import not_negative, one_of, positive
from tersor.distillation.rules import Loss, loss_for
from tersor.distillation.sampled import SampledCrossEntropy
from tersor.errors import DataError
from tersor.loading.task import Batch, Split
from tersor.optimizers.registry import Recipe, make_recipe
from tersor.optimizers.situations import Decision, recovery_rule
from tersor.recovery.blocks import reconstruct_blocks
from tersor.recovery.cache import MOST_BYTES, TeacherCache, drawn, fingerprint, wants_draws
from tersor.recovery.epochs import Epochs
from tersor.recovery.layers import Kept, refit_layers
from tersor.recovery.loop import Objective, fit
from tersor.recovery.mixing import imitation_between, mixable
from tersor.recovery.norms import evaluating, reestimate_norms
from tersor.recovery.settings import Settings
from tersor.recovery.teacher import distance, imitation, live
from tersor.recovery.views import Augment, Views, identity
from tersor.surgery.hold import Holder

#: The rungs in their order, cheapest first.
RUNGS = ("norms", "layers", "blocks", "distillation")


@dataclass(frozen=True)
class Ladder:
    """How far to climb, on which samples, and when to stop.

    Attributes:
        rungs: which rungs to try, a subset of `RUNGS`.
        batch: samples per training step.
        calibration: samples that all rungs but `distillation` work on; as many others are the probe.
        kept: teacher's output channels by layer or block name, for `layers` and `blocks`, where a cut left fewer.
        task_kind: `Task.kind`, for the default loss; None infers it from labels and outputs.
        lr: peak learning rate for an optimizer given by name; None takes the rule's.
        score: quality of a model, higher is better; run after each rung when given.
        enough: stop climbing once `score` reaches this.
        augment: makes random views of inputs for the training rung; None shows them as stored.
        views: number of different views of a sample.
        cache: folder that keeps the teacher's outputs from one call to the next; None keeps them for this call.
        cache_bytes: most disk that these outputs may take; the teacher is asked each time for samples beyond that.
        dropout: whether what the student leaves out at random in training is left out here too. Off by default: the
            answers of the teacher keep it from learning by heart, and with noise of its own a student that is nearly
            there moves away.
        between: whether the training rung shows mixtures of two samples in place of samples, where inputs can be mixed;
            what the teacher answers to them is computed each time. It pays in trainings of many passes.
        training: further dials of the training rung.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> Ladder(rungs=("norms",)).batch
        128
    """

    rungs: tuple[str, ...] = ("norms", "layers", "distillation")
    batch: int = 128
    calibration: int = 512
    task_kind: str | None = None
    lr: float | None = None
    score: Callable[[nn.Module], float] | None = None
    enough: float = float("inf")
    kept: Kept = field(default_factory=dict)
    augment: Augment | None = None
    views: int = 8
    cache: Path | None = None
    cache_bytes: int = MOST_BYTES
    dropout: bool = False
    between: bool = False
    training: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        for rung in self.rungs:
            one_of("rungs", rung, RUNGS)
        positive("batch", self.batch)
        positive("calibration", self.calibration)
        not_negative("cache_bytes", self.cache_bytes)


@dataclass(frozen=True)
class Rung:
    """What one rung brought and cost.

    Attributes:
        name: a member of `RUNGS`.
        before: distance to the teacher on the probe samples, in units of the loss.
        after: the same, after the rung.
        kept: whether the rung brought the model closer; otherwise its change was dropped.
        score: `Ladder.score` afterwards, None if none was given.
        wall_s: time, in seconds, without scoring.
        note: what was done, in words.
    """

    name: str
    before: float
    after: float
    kept: bool
    score: float | None
    wall_s: float
    note: str


@dataclass(frozen=True)
class Recovered:
    """A recovered student and the story of each rung.

    Attributes:
        model: the student, in eval mode.
        rungs: what each rung brought and cost, in order.
        loss: how student and teacher were compared.
        losses: loss of each training step; empty without the training rung.
        reason: which optimizer trained and why; empty without the training rung.
    """

    model: nn.Module
    rungs: tuple[Rung, ...]
    loss: Loss
    losses: tuple[float, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Situation:
    """What every rung is given besides the student.

    Attributes:
        draws: whether a memory of the teacher holds words drawn from its distribution.
    """

    teacher: nn.Module
    loss: Loss
    split: Split
    samples: list[Batch]
    probe: list[Batch]
    epochs: float
    optimizer: str | Recipe
    ladder: Ladder
    draws: bool = False

    def distance(self, model: nn.Module) -> float:
        """Return how far `model` is from the teacher on the probe."""
        return distance(model, self.probe, imitation(live(self.teacher), self.loss))


@dataclass(frozen=True)
class Climbed:
    """A student after a rung."""

    model: nn.Module
    note: str
    losses: tuple[float, ...] = ()


def recover(
    student: nn.Module,
    teacher: nn.Module,
    split: Split,
    *,
    epochs: float = 1.0,
    loss: Loss | None = None,
    optimizer: str | Recipe = "auto",
    ladder: Ladder | None = None,
) -> Recovered:
    """Bring a compressed `student` back towards the answers of `teacher`, cheapest means first.

    The rungs: `norms` re-estimates running statistics; `layers` refits each layer by least squares; `blocks` trains
    each block on the teacher's; `distillation` trains the whole on the teacher's outputs, which are computed once
    for each view of a sample; of a language model with many words, what is kept of them are words drawn from its
    distribution, whose loss is right on average. A rung that moves the student away from the teacher on the probe is
    undone. Plain and fake-quantized modules both work: the student is only called and its parameters updated.

    Args:
        student: compressed model; a copy is changed, unless `ladder.training.in_place`.
        teacher: original model; called in eval mode, never changed.
        split: training samples; labels are used only by a loss that wants them.
        epochs: length of the training rung, in passes over `split`; 0 leaves it out.
        loss: how to compare; by default what fits the task (`loss_for`).
        optimizer: name, recipe, or `auto`.
        ladder: rungs, batch, masks to hold and further dials.

    Raises:
        ArgumentError: if student and teacher give outputs of different shape under the default loss.
        DataError: if the split is empty.
        DivergedError: if training does not stay finite.

    Example:
        >>> import torch
        >>> from tersor.recovery.epochs import InMemory
        >>> _ = torch.manual_seed(0)
        >>> split = InMemory(torch.randn(256, 4))
        >>> student, teacher = nn.Linear(4, 2), nn.Linear(4, 2)
        >>> recovered = recover(student, teacher, split, epochs=20, optimizer="adamw", ladder=Ladder(lr=0.05))
        >>> recovered.rungs[-1].after < 0.1 * recovered.rungs[0].before
        True
    """
    ladder = ladder or Ladder()
    if len(split) == 0:
        raise DataError(f"The split {split.name!r} is empty, so there is nothing to recover with.")
    pool = list(split.batches(ladder.batch, shuffle=ladder.training.seed, limit=2 * ladder.calibration))
    half = (len(pool) + 1) // 2
    first = live(teacher)(pool[0])
    chosen = loss or loss_for(first, pool[0].target, ladder.task_kind)
    draws = loss is None and wants_draws(ladder.task_kind, first)
    situation = Situation(
        teacher, chosen, split, pool[:half], pool[half:] or pool, epochs, optimizer, ladder, draws
    )
    model = copy.deepcopy(student).eval()
    Holder(model, ladder.training.hold)
    recovered = _climb(model, situation, chosen)
    if not ladder.training.in_place:
        return recovered
    student.load_state_dict(recovered.model.state_dict())
    return replace(recovered, model=student.eval())


def _climb(model: nn.Module, situation: Situation, loss: Loss) -> Recovered:
    ladder, story = situation.ladder, []
    last = Climbed(model, "")
    for name in ladder.rungs:
        rung, climbed = _step(name, last.model, situation)
        if climbed is not None:
            last = replace(climbed, losses=last.losses + climbed.losses)
        if rung is not None:
            story.append(rung)
        if rung is not None and rung.score is not None and rung.score >= ladder.enough:
            break
    trained = any(rung.name == "distillation" for rung in story)
    return Recovered(last.model, tuple(story), loss, last.losses, story[-1].note if trained else "")


def _step(name: str, model: nn.Module, situation: Situation) -> tuple[Rung | None, Climbed | None]:
    """Try one rung; the second is None where the rung had nothing to do or did harm."""
    began = time.perf_counter()
    before = situation.distance(model)
    climbed = _RUNG[name](model, situation)
    if climbed is None:
        return None, None
    after = situation.distance(climbed.model)
    wall_s, kept = time.perf_counter() - began, after <= before
    score = situation.ladder.score(climbed.model if kept else model) if situation.ladder.score else None
    return Rung(name, before, after, kept, score, wall_s, climbed.note), climbed if kept else None


def _norms(model: nn.Module, situation: Situation) -> Climbed | None:
    mended = copy.deepcopy(model)
    count = reestimate_norms(mended, situation.samples)
    return Climbed(mended, f"new running statistics for {count} layers") if count else None


def _layers(model: nn.Module, situation: Situation) -> Climbed | None:
    refitted, masked = copy.deepcopy(model).eval(), situation.ladder.training.hold
    with evaluating(situation.teacher):
        count = refit_layers(
            refitted, situation.teacher, situation.samples, kept=situation.ladder.kept, masked=masked
        )
    return Climbed(refitted, f"least squares of {count} layers") if count else None


def _blocks(model: nn.Module, situation: Situation) -> Climbed | None:
    rebuilt, ladder = copy.deepcopy(model).eval(), situation.ladder
    holder = Holder(rebuilt, ladder.training.hold)
    with evaluating(situation.teacher), torch.enable_grad():
        count = reconstruct_blocks(
            rebuilt, situation.teacher, situation.samples, kept=ladder.kept, holder=holder
        )
    return Climbed(rebuilt, f"reconstruction of {count} blocks") if count else None


def _distillation(model: nn.Module, situation: Situation) -> Climbed | None:
    if situation.epochs == 0:
        return None
    ladder = situation.ladder
    split = situation.split
    if ladder.augment:
        split = Views(split, ladder.augment, ladder.views, ladder.training.seed)
    batches = Epochs(split, ladder.batch, situation.epochs, ladder.training.seed)
    decision = _decide(model, situation, len(batches))
    trained = fit(
        model,
        batches,
        objective=_objective(situation),
        optimizer=decision.recipe,
        settings=replace(ladder.training, in_place=False, dropout=ladder.dropout),
    )
    if _mixes(situation):
        # The statistics are those of mixtures, which vary less than samples do.
        reestimate_norms(trained.model, situation.samples)
    return Climbed(trained.model, f"{decision.recipe!r}: {decision.reason}", trained.losses)


def _mixes(situation: Situation) -> bool:
    return situation.ladder.between and mixable(situation.probe[0].inputs)


def _objective(situation: Situation) -> Objective:
    """Imitate the teacher itself on mixtures and for one pass over new views; else a cache of its outputs."""
    ladder, split, way = situation.ladder, situation.split, situation.ladder.training.arithmetic
    teacher, views = live(situation.teacher, way), ladder.views if ladder.augment else 1
    if _mixes(situation):
        return imitation_between(teacher, situation.loss, seed=ladder.training.seed, arithmetic=way)
    if situation.epochs <= views and ladder.cache is None:
        return imitation(teacher, situation.loss, way)
    loss = situation.loss
    if situation.draws:
        teacher, loss = drawn(teacher, seed=ladder.training.seed), SampledCrossEntropy()
    key = fingerprint(
        situation.teacher,
        split.name,
        len(split),
        identity(ladder.augment),
        views,
        ladder.training.seed,
        str(way),
    )
    team, folder = ladder.training.team, ladder.cache
    if folder and team:
        folder = folder / str(team.index)
    cache = TeacherCache(teacher, views * len(split), folder=folder, key=key, most_bytes=ladder.cache_bytes)
    return imitation(cache, loss, way)


def _decide(model: nn.Module, situation: Situation, steps: int) -> Decision:
    rule = recovery_rule(model, min(situation.ladder.batch, len(situation.split)), steps)
    if situation.optimizer == "auto":
        return rule
    if isinstance(situation.optimizer, str):
        lr = situation.ladder.lr or rule.recipe.lr
        return Decision(make_recipe(situation.optimizer, lr=lr), "asked for")
    return Decision(situation.optimizer, "asked for")


_RUNG: dict[str, Callable[[nn.Module, Situation], Climbed | None]] = {
    "norms": _norms,
    "layers": _layers,
    "blocks": _blocks,
    "distillation": _distillation,
}
