"""What usually trains a kind of network: a table, and the census that reads it."""

from dataclasses import dataclass, replace

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tersor._check import one_of
from tersor.optimizers.adamw import AdamW
from tersor.optimizers.groups import parameter_groups
from tersor.optimizers.muon import Muon
from tersor.optimizers.nadamw import NAdamW
from tersor.optimizers.registry import RECIPES, Recipe, make_recipe
from tersor.optimizers.sgd import SGD


@dataclass(frozen=True, slots=True)
class Census:
    """What a model is made of.

    Attributes:
        parameters: number of trainable entries.
        matrices: share of them in weights with two or more axes.
        norm: `batch`, `layer` or `none`: which kind of normalisation layer it has most of.
    """

    parameters: int
    matrices: float
    norm: str


def census(model: nn.Module) -> Census:
    """Count the parameters and norms of `model`.

    Example:
        >>> census(nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2)))
        Census(parameters=22, matrices=0.8181818181818182, norm='batch')
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    total = sum(p.numel() for p in trainable)
    matrices = sum(p.numel() for p in trainable if p.dim() > 1)
    batch = sum(isinstance(m, _BatchNorm) for m in model.modules())
    layer = sum(isinstance(m, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm) for m in model.modules())
    norm = "none" if batch == layer == 0 else "batch" if batch >= layer else "layer"
    return Census(total, matrices / max(total, 1), norm)


#: Where the weights come from: fresh, another task, or a larger network of the same task.
STARTS = ("scratch", "trained", "compressed")
#: Methods that bring their own schedule: theirs is a constant rate.
OWN_SCHEDULE = frozenset({"schedule_free"})

#: Peak learning rates at batch 128, by start and by the kind of norm; the likeliest recipe first.
_ARMS: dict[str, dict[str, tuple[Recipe, ...]]] = {
    "scratch": {
        "batch": (Muon(lr=1e-2), NAdamW(lr=5e-3), SGD(lr=0.1, weight_decay=5e-4)),
        "layer": (Muon(lr=1e-2), NAdamW(lr=5e-3, beta2=0.99), AdamW(lr=2e-3)),
        "none": (Muon(lr=1e-2), NAdamW(lr=1e-2), SGD(lr=0.1)),
    },
    "trained": {
        "batch": (SGD(lr=0.01, weight_decay=1e-4), AdamW(lr=3e-4), Muon(lr=3e-4)),
        "layer": (AdamW(lr=1e-4), NAdamW(lr=1e-4, beta2=0.99), AdamW(lr=3e-5)),
        "none": (AdamW(lr=5e-4), SGD(lr=0.01), Muon(lr=3e-4)),
    },
    "compressed": {
        "batch": (SGD(lr=0.02, weight_decay=1e-4), AdamW(lr=1e-3), Muon(lr=1e-3)),
        "layer": (AdamW(lr=5e-4), NAdamW(lr=5e-4, beta2=0.99), Muon(lr=5e-4)),
        "none": (AdamW(lr=2e-3), NAdamW(lr=2e-3), SGD(lr=0.02)),
    },
}
#: Usual peak rates from scratch of the methods by name, and what is left of them for other starts.
_RATES = {
    "sgd": 0.1, "adam": 2e-3, "adamw": 2e-3, "rmsprop": 1e-3, "adagrad": 2e-2, "nadamw": 3e-3, "lion": 3e-4,
    "adafactor": 1e-2, "muon": 5e-3, "schedule_free": 5e-3, "prodigy": 1.0,
}  # fmt: skip
_LEFT = {"scratch": 1.0, "trained": 0.1, "compressed": 0.2}
#: Transformers of this many parameters and more take a fifth of the rates of small ones.
_LARGE = 5_000_000
#: Steps of a recovery from which they take the usual rate.
_GENTLE = 200
#: Operations of a step that are noticed: some milliseconds on one core.
_NOTICED = 2e8
#: Exponent by which the best peak rate falls as runs from scratch grow, measured by `bench.optimizers.rates_by_length`.
#: That of other methods hardly does: their shortest runs meet the edge of stability, their longest ones average noise.
_FALL: dict[type, float] = {Muon: 0.3}
#: Steps of the runs for which the rates from scratch are the usual ones.
_KNOWN = 1600


def portfolio(
    model: nn.Module, start: str = "scratch", batch: int = 128, steps: int | None = None
) -> tuple[Recipe, ...]:
    """Return the recipes worth trying on `model`, the likeliest first.

    Args:
        model: looked at, not run.
        start: one of `STARTS`.
        batch: samples per step; below 128 the rates shrink with the root, those of SGD for a compressed network in
            proportion; unless the weights are fresh.
        steps: length of the run, where weights are fresh; a middling one when left out.

    Raises:
        ArgumentError: if the start is unknown.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        >>> [round(portfolio(network, steps=steps)[0].lr, 4) for steps in (160, 1600, 16_000)]
        [0.02, 0.01, 0.005]
    """
    seen, heavy = census(model), is_muon_heavy(model, batch)
    arms = _ARMS[one_of("start", start, STARTS)][seen.norm]
    return tuple(
        scaled(_lasting(arm, start, steps), _size(seen) * _share(arm, start, batch))
        for arm in arms
        if not (heavy and isinstance(arm, Muon))
    )


def at_length(recipe: Recipe, steps: int, known: int = _KNOWN) -> Recipe:
    """Return a recipe whose rate suits a run of `known` steps at the rate for one of `steps`.

    Args:
        recipe: optimizer and peak rate.
        steps: length of the run.
        known: length that the rate is for.

    Example:
        >>> at_length(SGD(lr=0.1), 40).lr, round(at_length(Muon(lr=0.01), 40).lr, 4)
        (0.1, 0.0302)
    """
    return scaled(recipe, (known / steps) ** _FALL.get(type(recipe), 0.0))


def _lasting(recipe: Recipe, start: str, steps: int | None) -> Recipe:
    return at_length(recipe, steps) if steps and start == "scratch" else recipe


def is_muon_heavy(model: nn.Module, batch: int) -> bool:
    """Say whether Muon's iteration on the matrices would take longer than the gradients themselves.

    For a matrix of `a` rows and `b >= a` columns, five iterations take `5 (4 a^2 b + 2 a^3)` operations, and the
    gradients `6 a b` for each position; without a run, a convolution is taken to see 64 positions a sample, a layer of
    a network with layer norms 32, others one. What takes a few milliseconds does not count.

    Args:
        model: looked at, not run.
        batch: samples per step.

    Example:
        >>> wide = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 10))
        >>> is_muon_heavy(wide, 32), is_muon_heavy(wide, 4096)
        (True, False)
    """
    positions = 32 if census(model).norm == "layer" else 1
    iterations, gradients = 0.0, 0.0
    for group in parameter_groups(model):
        for matrix in group["params"] if group["kind"] == "matrix" else ():
            a, b = sorted(matrix.flatten(1).shape)
            iterations += 5 * (4 * a * a * b + 2 * a**3)
            gradients += 6 * a * b * batch * (64 if matrix.dim() > 2 else positions)
    return iterations > max(_NOTICED, gradients)


def usual_recipe(name: str, model: nn.Module, start: str = "scratch", steps: int | None = None) -> Recipe:
    """Return the optimizer called `name` at its usual rate for such a model.

    Args:
        name: of the optimizer.
        model: looked at, not run.
        start: one of `STARTS`.
        steps: length of the run, where weights are fresh; a middling one when left out.

    Raises:
        ArgumentError: if a name is unknown.

    Example:
        >>> usual_recipe("rmsprop", nn.Linear(2, 2)).lr
        0.001
    """
    kind, seen = RECIPES[one_of("optimizer", name, RECIPES)], census(model)
    arms = _ARMS[one_of("start", start, STARTS)][seen.norm]
    left = 1.0 if name == "prodigy" else _LEFT[start]
    known = next((arm for arm in arms if type(arm) is kind), make_recipe(name, lr=_RATES[name] * left))
    return known if name == "prodigy" else scaled(_lasting(known, start, steps), _size(seen))


def scaled(recipe: Recipe, factor: float) -> Recipe:
    """Return `recipe` with `factor` times its learning rate.

    Example:
        >>> scaled(SGD(lr=0.1), 0.5).lr
        0.05
    """
    return at_rate(recipe, recipe.lr * factor)


def at_rate(recipe: Recipe, lr: float) -> Recipe:
    """Return `recipe` with the peak learning rate `lr`.

    Example:
        >>> at_rate(SGD(lr=0.1), 0.5).lr
        0.5
    """
    return replace(recipe, lr=lr)  # pyright: ignore[reportArgumentType] - every recipe is a dataclass


def _size(seen: Census) -> float:
    return 0.2 if seen.norm == "layer" and seen.parameters >= _LARGE else 1.0


def _share(recipe: Recipe, start: str, batch: int) -> float:
    """Return what small batches leave of a rate: less in a network that already works."""
    if start == "scratch":
        return 1.0
    share = min(1.0, batch / 128)
    return share if isinstance(recipe, SGD) and start == "compressed" else share**0.5


@dataclass(frozen=True, slots=True)
class Decision:
    """A recipe and why it was taken."""

    recipe: Recipe
    reason: str


_WHY = {
    "batch": "batch norms: SGD with Nesterov momentum, a fifth of the usual peak",
    "layer": "layer norms: AdamW, slower when larger",
    "none": "no norm layers: AdamW, which needs no rate per layer",
}


def recovery_rule(model: nn.Module, batch: int, steps: int | None = None) -> Decision:
    """Return the usual recipe to recover a compressed model of this kind, without trials.

    A compressed model restarts near a fifth of the peak that training from scratch takes. Few steps at that rate throw
    a large transformer off, which is near its teacher after a cut, and do not bring it back: its rate grows with their
    number up to the usual one (`bench.recovery.transformer`).

    Args:
        model: looked at, not run.
        batch: samples per step.
        steps: length of the run; a long one when left out.

    Example:
        >>> recovery_rule(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), 128).recipe.lr
        0.02
    """
    seen, recipe = census(model), portfolio(model, "compressed", batch)[0]
    if steps and _size(seen) < 1.0:
        recipe = scaled(recipe, min(1.0, steps / _GENTLE))
    return Decision(recipe, _WHY[seen.norm])
