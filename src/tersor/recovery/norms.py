"""Normalisation layers with running statistics: re-estimate them, or leave them alone."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tersor.loading.inputs import Inputs, batch_size, call, device_of, map_tensors
from tersor.loading.task import Batch


def running_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the layers of `model` that keep running statistics of their input.

    Example:
        >>> len(running_norms(nn.Sequential(nn.BatchNorm1d(3), nn.LayerNorm(3))))
        1
    """
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def reestimate_norms(model: nn.Module, batches: Iterable[Batch]) -> int:
    r"""Replace, in place, the running statistics of `model` by those of `batches`.

    $$\mu = \frac{1}{k} \sum_j \mu_j, \qquad \sigma^2 = \frac{1}{k} \sum_j \sigma_j^2$$

    over the `k` batches, each with its own mean and unbiased variance. Cutting channels, rounding
    weights or averaging checkpoints shifts what reaches a BatchNorm; one forward pass without labels
    mends that. Weights are untouched, and dropout stays off.

    Args:
        model: changed in its running statistics only; its training modes are restored.
        batches: samples like those of training; batches of one sample are skipped.

    Returns:
        The number of layers with new statistics, 0 if the model has none or every batch was skipped.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1, affine=False))
        >>> reestimate_norms(model, [Batch((torch.tensor([[1.0], [3.0]]),), None, (0, 1))])
        1
        >>> model[0].running_mean, model[0].running_var
        (tensor([2.]), tensor([2.]))

    Source:
        Sun et al., Revisiting BatchNorm for domain adaptation (AdaBN), and Li et al., EagleEye, ECCV 2020,
        section 3.2. https://arxiv.org/abs/2007.02491
    """
    norms = running_norms(model)
    usable = (batch for batch in batches if batch_size(batch.inputs) > 1)
    first = next(iter(usable), None)
    if not norms or first is None:
        return 0
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then averages all batches with equal weight
        norm.train()
    try:
        call(model, on_device(model, first.inputs))
        for batch in usable:
            call(model, on_device(model, batch.inputs))
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
    return len(norms)


def on_device(model: nn.Module, inputs: Inputs) -> Inputs:
    """Return `inputs` on the device of `model`."""
    device = device_of(model)
    return map_tensors(lambda t: t.to(device), inputs)


@contextmanager
def training_mode(model: nn.Module, samples: int, *, dropout: bool = True) -> Iterator[None]:
    """Put `model` in training mode; norms with statistics stay in eval mode for a batch of one sample.

    One sample has no variance, and torch refuses it. Without `dropout` all the rest is in eval mode too, but for
    recurrent layers, whose gradients cuDNN gives in training mode only.
    """
    model.train(dropout)
    for norm in running_norms(model):
        norm.train(samples > 1)
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.train()
    yield


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put `models` in eval mode without gradients, and give every module its mode back at the end."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
