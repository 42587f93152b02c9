"""What usually trains a kind of network: a table, and the census that reads it."""

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tersor.optimizers.adamw import AdamW
from tersor.optimizers.muon import Muon
from tersor.optimizers.nadamw import NAdamW
from tersor.optimizers.registry import Recipe
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


#: Peak learning rates from scratch at batch 128, the likeliest first.
_ARMS: dict[str, tuple[Recipe, ...]] = {
    "batch": (SGD(lr=0.1, weight_decay=5e-4), Muon(lr=5e-3), NAdamW(lr=3e-3)),
    "layer": (NAdamW(lr=1e-3, beta2=0.99), Muon(lr=2e-3), AdamW(lr=1e-3)),
    "none": (Muon(lr=5e-3), NAdamW(lr=6e-3), SGD(lr=0.1)),
}


def portfolio(model: nn.Module) -> tuple[Recipe, ...]:
    """Return the recipes worth trying on `model` from scratch, the likeliest first.

    Example:
        >>> portfolio(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))[0].lr
        0.1
    """
    return _ARMS[census(model).norm]


@dataclass(frozen=True, slots=True)
class Decision:
    """A recipe and why it was taken."""

    recipe: Recipe
    reason: str


def recovery_rule(model: nn.Module, batch: int) -> Decision:
    """Return the usual recipe to recover a compressed model of this kind, without trials.

    The learning rates are for batches of 128 and shrink in proportion below; a compressed model
    restarts near a fifth of what training from scratch takes.

    Args:
        model: looked at, not run.
        batch: samples per step.

    Example:
        >>> recovery_rule(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), 128).recipe.lr
        0.02
    """
    share, seen = min(1.0, batch / 128), census(model)
    if seen.norm == "batch":
        recipe = SGD(lr=0.02 * share, weight_decay=1e-4)
        return Decision(recipe, "batch norms: SGD with Nesterov momentum, a fifth of the usual peak")
    if seen.norm == "layer":
        lr = 5e-4 if seen.parameters < 5_000_000 else 1e-4
        return Decision(
            AdamW(lr=lr), f"layer norms, {seen.parameters / 1e6:.1f}M parameters: AdamW, slower when larger"
        )
    return Decision(AdamW(lr=2e-3 * share**0.5), "no norm layers: AdamW, which needs no rate per layer")
