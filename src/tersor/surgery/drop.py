"""Drop a residual block: only its skip connection stays."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tersor.errors import PlanError


class Skip(nn.Module):
    """Give the first argument back, alone or in a tuple, as the block that stood here did.

    Attributes:
        width: how many values the block returned in a tuple; 0 for a single tensor.
    """

    def __init__(self, width: int = 0) -> None:
        super().__init__()
        self.width = width

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the input of the block."""
        given: Tensor = args[0] if args else next(iter(kwargs.values()))
        return (given, *[None] * (self.width - 1)) if self.width else given

    def extra_repr(self) -> str:
        """Show the width where it matters."""
        return f"width={self.width}" if self.width else ""


def drop(model: nn.Module, block: str, blocks: Mapping[str, int]) -> None:
    """Replace a block of `model` in place by its skip connection.

    Raises:
        PlanError: if the block does not add to its input.
    """
    if block not in blocks:
        known = ", ".join(list(blocks)[:8]) or "none"
        raise PlanError(f"{block!r} is not a block that adds to its input. This model has: {known}.")
    old, skip = model.get_submodule(block), Skip(blocks[block])
    for key, value in old.__dict__.items():
        if (
            not key.startswith("_")
            and key not in skip.__dict__
            and isinstance(value, int | float | str | bool)
        ):
            skip.__dict__[key] = value
    skip.train(old.training)
    owner, _, leaf = block.rpartition(".")
    model.get_submodule(owner)._modules[leaf] = skip
