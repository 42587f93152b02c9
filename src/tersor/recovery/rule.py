"""The optimizer of a recovery without trials: a table by what the model is made of."""

from dataclasses import dataclass

from torch import nn

from tersor.optimizers.adamw import AdamW
from tersor.optimizers.registry import Recipe
from tersor.optimizers.sgd import SGD
from tersor.recovery.norms import running_norms


@dataclass(frozen=True)
class Decision:
    """A recipe and why it was taken."""

    recipe: Recipe
    reason: str


def simple_rule(model: nn.Module, batch: int) -> Decision:
    """Return the usual recovery recipe for the kind of network that `model` is.

    The learning rates are for batches of 128 and shrink in proportion below; a compressed model
    restarts near a tenth of what training from scratch takes.

    Args:
        model: looked at, not run.
        batch: samples per step.

    Example:
        >>> simple_rule(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), 128).recipe.lr
        0.02
    """
    share = min(1.0, batch / 128)
    if running_norms(model):
        recipe: Recipe = SGD(lr=0.02 * share, weight_decay=1e-4)
        return Decision(recipe, "batch norms: SGD with Nesterov momentum, a tenth of the usual 0.2 peak")
    if any(isinstance(m, nn.LayerNorm | nn.RMSNorm | nn.MultiheadAttention) for m in model.modules()):
        size = sum(p.numel() for p in model.parameters())
        lr = 5e-4 if size < 5_000_000 else 1e-4
        return Decision(
            AdamW(lr=lr), f"layer norms, {size / 1e6:.1f}M parameters: AdamW, smaller rate for larger models"
        )
    return Decision(AdamW(lr=2e-3 * share**0.5), "no norm layers: AdamW, which needs no rate per layer")
