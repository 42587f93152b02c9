"""Zeros that grow in number while the model trains, and stay zero."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tersor._check import fraction, one_of
from tersor.errors import ArgumentError
from tersor.pruning.unstructured import quantile


@dataclass(frozen=True, slots=True)
class Cubic:
    r"""Ratio of zeros at each step: fast while many weights are idle, slow towards the end.

    $$s_t = s_f + (s_0 - s_f) \Bigl(1 - \frac{t - t_0}{t_1 - t_0}\Bigr)^3, \qquad t_0 \le t \le t_1$$

    Attributes:
        final: ratio from step `end` on, in [0, 1).
        begin: first step that prunes.
        end: step that reaches `final`.
        every: steps between two changes of the masks.
        initial: ratio at `begin`.

    Raises:
        ArgumentError: if a ratio is no fraction, or not `0 <= begin < end` and `every >= 1`.

    Example:
        >>> [round(Cubic(final=0.8, end=100).ratio(step), 3) for step in (0, 50, 100, 200)]
        [0.0, 0.7, 0.8, 0.8]

    Source:
        Zhu and Gupta, To prune, or not to prune: exploring the efficacy of pruning for model compression,
        2017, equation 1.
    """

    final: float
    begin: int = 0
    end: int = 1000
    every: int = 1
    initial: float = 0.0

    def __post_init__(self) -> None:
        fraction("final", self.final)
        fraction("initial", self.initial)
        if not (0 <= self.begin < self.end and self.every >= 1):
            raise ArgumentError(f"`Cubic` needs 0 <= begin < end and every >= 1, got {self!r}.")

    def ratio(self, step: int) -> float:
        """Return the ratio of zeros that step `step` should have."""
        step = min(max(step, self.begin), self.end)
        step = self.end if step == self.end else self.begin + (step - self.begin) // self.every * self.every
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return self.final + (self.initial - self.final) * left**3


class Hold:
    """Keep masked entries of a model at zero; call it after each optimizer step, or attach it to one.

    Args:
        model: its masked parameters are set to zero now.
        masks: by parameter name, True or 1 where a weight stays. `zeros_of` reads them off a masked model.

    Raises:
        ArgumentError: if a mask names no parameter or has another shape.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> hold = Hold(model, {"weight": torch.tensor([[True, False]])}).attach(optimizer)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> model.weight[0, 1].item()
        0.0
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        known = dict(model.named_parameters())
        for name, mask in masks.items():
            if name not in known or known[name].shape != mask.shape:
                has = f"shape {tuple(known[name].shape)}" if name in known else "no such parameter"
                raise ArgumentError(
                    f"The mask of {name!r} has shape {tuple(mask.shape)}; the model has {has}."
                )
        self._held = {name: (known[name], mask.to(known[name].device) != 0) for name, mask in masks.items()}
        self()

    @torch.no_grad()
    def __call__(self) -> None:
        """Set the masked entries to zero."""
        for parameter, mask in self._held.values():
            parameter.masked_fill_(~mask, 0)

    def attach(self, optimizer: Optimizer) -> "Hold":
        """Run after every step of `optimizer`; return self."""
        optimizer.register_step_post_hook(lambda *_: self())
        return self

    @property
    def masks(self) -> dict[str, Tensor]:
        """Return the masks in force, True where a weight stays."""
        return {name: mask for name, (_, mask) in self._held.items()}

    @property
    def ratio(self) -> float:
        """Return the fraction of the held weights that is masked."""
        masks = [mask for _, mask in self._held.values()]
        return 1 - sum(float(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    @torch.no_grad()
    def tighten(self, ratio: float, *, scope: str = "global") -> None:
        """Mask the smallest `ratio` of the weights; those masked before stay so, being zero.

        Args:
            ratio: fraction masked afterwards.
            scope: `global` ranks all held weights together, `layer` each parameter alone.
        """
        fraction("ratio", ratio)
        one_of("scope", scope, ("global", "layer"))
        # Entries masked before rank below every other, also below live weights that are zero by chance.
        sizes = {name: torch.where(mask, w.abs().float(), -1.0) for name, (w, mask) in self._held.items()}
        together = quantile(list(sizes.values()), ratio) if scope == "global" else 0.0
        for name, (weight, _) in self._held.items():
            limit = together if scope == "global" else quantile([sizes[name]], ratio)
            self._held[name] = weight, sizes[name] >= max(limit, 0.0)
        self()


def zeros_of(model: nn.Module) -> dict[str, Tensor]:
    """Return masks that hold every entry that is exactly zero now, of parameters that have any.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> model.weight.data[0, 0] = 0
        >>> zeros_of(model)["weight"].tolist()
        [[False, True]]
    """
    weights = {name: value.detach() for name, value in model.named_parameters() if value.dim() > 1}
    return {name: value != 0 for name, value in weights.items() if bool((value == 0).any())}


def gradually(hold: Hold, schedule: Cubic, *, scope: str = "global") -> Callable[[int], Any]:
    """Return a function to call after each training step, with its number from 1, that follows `schedule`.

    Example:
        >>> model = nn.Linear(10, 10, bias=False)
        >>> hold = Hold(model, {"weight": torch.ones(10, 10)})
        >>> after_step = gradually(hold, Cubic(final=0.75, end=20, every=5))
        >>> for step in range(1, 21):
        ...     after_step(step)  # after optimizer.step()
        >>> round(hold.ratio, 2)
        0.75
    """
    done = [schedule.initial]

    def after_step(step: int) -> None:
        ratio = schedule.ratio(step)
        if step >= schedule.begin and ratio != done[0]:
            hold.tighten(ratio, scope=scope)
            done[0] = ratio
        else:
            hold()

    return after_step
