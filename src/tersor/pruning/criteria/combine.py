"""From one score per member to one score per unit."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

#: Ways to join the members' scores, each from (members, units) to (units,).
COMBINE: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda scores: scores.mean(0),
    "sum": lambda scores: scores.sum(0),
    "max": lambda scores: scores.amax(0),
    "product": lambda scores: scores.clamp_min(1e-30).log().mean(0).exp(),
}


def combined(scores: Iterable[Float[Tensor, "units"]], how: str) -> Float[Tensor, "units"]:
    """Join the scores of members, each first divided by its mean so that all have the same say.

    Example:
        >>> combined([torch.tensor([1.0, 3.0]), torch.tensor([30.0, 10.0])], "mean")
        tensor([1., 1.])
    """
    tiny = torch.finfo(torch.float32).tiny
    return COMBINE[how](torch.stack([score / score.mean().clamp_min(tiny) for score in scores]))
