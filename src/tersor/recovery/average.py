"""A running mean of a model's weights: smoother than the last step, and free."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tersor.recovery.norms import running_norms


class Average:
    r"""The running mean of trainable weights and of the norms' statistics.

    $$\bar w \leftarrow \beta_t \bar w + (1 - \beta_t) w, \qquad \beta_t = \min(\beta, (1 + t) / (10 + t))$$

    The first steps weigh more, so that the mean does not remember the start.

    Args:
        model: whose tensors are averaged.
        decay: beta, in (0, 1); None keeps no mean.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> mean = Average(model, 0.99)
        >>> with torch.no_grad():
        ...     _ = model.weight.fill_(11.0), mean.tensors["weight"].fill_(0.0)
        >>> mean.update(model, step=1)
        >>> round(mean.tensors["weight"].item(), 4)
        9.0

    Source:
        Polyak and Juditsky, SIAM J. Control Optim. 30, 1992; the warm-up is that of TensorFlow's
        ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self.decay = decay
        self.tensors = {} if decay is None else {name: t.clone() for name, t in _averaged(model).items()}

    def update(self, model: nn.Module, step: int) -> None:
        """Move the mean towards the weights of `model` after `step` steps."""
        if self.decay is not None:
            beta = min(self.decay, (1 + step) / (10 + step))
            now = _averaged(model)
            torch._foreach_lerp_([self.tensors[name] for name in now], list(now.values()), 1 - beta)

    @torch.no_grad()
    def write(self, model: nn.Module) -> None:
        """Replace the weights of `model` by the mean."""
        for name, tensor in _averaged(model).items():
            if self.tensors:
                tensor.copy_(self.tensors[name])

    @contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Let `model` have the mean for a while."""
        own = {name: t.clone() for name, t in _averaged(model).items()} if self.tensors else {}
        self.write(model)
        try:
            yield
        finally:
            for name, tensor in _averaged(model).items() if own else ():
                tensor.copy_(own[name])


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    norms = {id(norm) for norm in running_norms(model)}
    for prefix, module in model.named_modules():
        if id(module) in norms:
            found |= {
                f"{prefix}.{name}".removeprefix("."): buffer.detach()
                for name, buffer in module.named_buffers(recurse=False)
                if buffer.is_floating_point()
            }
    return found
