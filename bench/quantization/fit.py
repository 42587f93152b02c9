"""The training loop of the networks that this bench quantizes."""

import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tersor.optimizers.registry import make_recipe


def fit(
    model: nn.Module,
    losses: Iterable[Tensor],
    *,
    steps: int,
    optimizer: str,
    lr: float,
    clip: float = float("inf"),
    **options: float,
) -> None:
    """Take `steps` steps under a one-cycle schedule, in place.

    Args:
        model: whose parameters are trained.
        losses: gives a loss for each step; each is asked for after the step before it.
        steps: how many.
        optimizer: name of a recipe.
        lr: its peak learning rate.
        clip: largest norm of the gradient.
        options: further hyperparameters of the recipe.
    """
    stepper = make_recipe(optimizer, lr=lr, **options).build(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(stepper, lr, total_steps=steps, pct_start=0.1)
    began = time.monotonic()
    for step, loss in zip(range(steps), losses, strict=False):
        stepper.zero_grad()
        loss.backward()
        if clip < float("inf"):
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        stepper.step()
        schedule.step()
        if step % 20 == 0:
            print(f"step {step}: {loss.item():.4f}, {time.monotonic() - began:.0f} s", flush=True)
