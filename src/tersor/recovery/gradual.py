"""Training with zeros that grow in number."""

from collections.abc import Callable
from typing import Any

from tersor.pruning.gradual import Cubic, tightened
from tersor.surgery.hold import Holder


def gradually(holder: Holder, schedule: Cubic, *, scope: str = "global") -> Callable[[int], Any]:
    """Return a function to call after each training step, with its number from 1, that follows `schedule`.

    Args:
        holder: the parameters that take part, and the masks that they start from.
        schedule: ratio of zeros at each step.
        scope: `global` ranks all held weights together, `layer` each parameter alone.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(10, 10, bias=False)
        >>> holder = Holder(model, {"weight": torch.ones(10, 10)})
        >>> after_step = gradually(holder, Cubic(final=0.75, end=20, every=5))
        >>> for step in range(1, 21):
        ...     after_step(step)  # after optimizer.step()
        >>> round(holder.ratio, 2)
        0.75
    """
    done = [schedule.initial]

    def after_step(step: int) -> None:
        ratio = schedule.ratio(step)
        if step >= schedule.begin and ratio != done[0]:
            holder.hold(tightened(holder.weights, holder.masks, ratio, scope=scope))
            done[0] = ratio
        else:
            holder.mask_weights()

    return after_step
