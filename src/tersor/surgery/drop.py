"""Drop a residual block, of which only the skip connection stays, or one branch of it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
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


class Nothing(Skip):
    """Give zeros in the shape of the first argument, alone or in a tuple, as the branch that stood here might."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return zeros."""
        given = super().forward(*args, **kwargs)
        return (torch.zeros_like(given[0]), *given[1:]) if self.width else torch.zeros_like(given)


def drop(
    model: nn.Module,
    block: str,
    blocks: Mapping[str, int],
    branches: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Replace a block of `model` in place by its skip connection, or a branch by nothing.

    Raises:
        PlanError: if the block does not add to its input, and is not added to a stream.
    """
    if block not in blocks and block not in branches:
        known = ", ".join([*blocks, *branches][:8]) or "none"
        raise PlanError(
            f"{block!r} is not a block that adds to its input, nor a branch of one. This model has: {known}."
        )
    old = model.get_submodule(block)
    skip = Skip(blocks[block]) if block in blocks else Nothing(branches[block])
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
