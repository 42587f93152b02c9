"""How noisy the gradient is: what tells whether a batch is small or large."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tersor.loading.inputs import batch_size, device_of, map_tensors
from tersor.loading.task import Batch

#: Scalar loss of a model on a batch.
Objective: TypeAlias = Callable[[nn.Module, Batch], Tensor]


def noise_scale(model: nn.Module, batches: Sequence[Batch], objective: Objective) -> float:
    r"""Return the number of samples at which noise and gradient are equally large.

    $$B = \frac{\mathrm{tr}\,\Sigma}{\lVert G \rVert^2}, \qquad
      \mathrm{tr}\,\Sigma \approx \frac{\overline{\lVert g_b \rVert^2} - \lVert \bar g \rVert^2}{1/b - 1/(kb)}, \qquad
      \lVert G \rVert^2 \approx \frac{k \lVert \bar g \rVert^2 - \overline{\lVert g_b \rVert^2}}{k - 1}$$

    over the gradients of `k` batches of `b` samples and their mean. Batches far below B waste little; far above it, a
    twice as large batch no longer allows twice as large a step.

    Args:
        model: copied; not changed.
        batches: at least two.
        objective: scalar loss of (model, batch).

    Returns:
        Samples; infinite where the gradients cancel.

    Example:
        >>> def loss(model, batch):
        ...     return (model(batch.inputs[0]) - batch.target).square().mean()
        >>> x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> same = [Batch((x[:99],), x[:99, :1] + 3, tuple(range(99)))] * 4
        >>> noise_scale(nn.Linear(2, 1), same, loss) < 1e-3
        True

    Source:
        McCandlish et al., An Empirical Model of Large-Batch Training, 2018, appendix A.1.
        https://arxiv.org/abs/1812.06162
    """
    model = copy.deepcopy(model).eval()
    gradients = [_gradient(model, moved(model, batch), objective) for batch in batches]
    count = len(gradients)
    samples = sum(batch_size(batch.inputs) for batch in batches) / count
    small = sum(g.square().sum().item() for g in gradients) / count
    large = torch.stack(gradients).mean(0).square().sum().item()
    spread = (small - large) / (1 / samples - 1 / (count * samples))
    signal = (count * large - small) / (count - 1)
    return max(spread, 0.0) / signal if signal > 0 else math.inf


def _gradient(model: nn.Module, batch: Batch, objective: Objective) -> Tensor:
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(objective(model, batch), parameters, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def moved(model: nn.Module, batch: Batch) -> Batch:
    """Return `batch` with its inputs on the device of `model`."""
    device = device_of(model)
    return Batch(map_tensors(lambda t: t.to(device), batch.inputs), batch.target, batch.ids)
