"""Reading tensors inside a network while it runs, by module name, without changing it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tersor.loading.inputs import call
from tersor.loading.task import Batch
from tersor.recovery.norms import on_device, running_norms


@dataclass
class Tap:
    """What went through a module: arguments and result of each call, in order."""

    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)


class _Reached(Exception):
    pass


@contextmanager
def tapped(model: nn.Module, names: Sequence[str], *, stop: bool = False) -> Iterator[dict[str, Tap]]:
    """Record what goes through the modules called `names`; with `stop`, end the pass after the last of them.

    Hooks are removed at the end, whatever happens.
    """
    taps = {name: Tap() for name in names}
    modules = dict(model.named_modules())

    def hook(name: str):
        def record(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            taps[name].arguments.append((args, kwargs))
            taps[name].results.append(result)
            if stop and name == names[-1]:
                raise _Reached

        return record

    handles = [modules[name].register_forward_hook(hook(name), with_kwargs=True) for name in names]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def observe(
    model: nn.Module, batches: Sequence[Batch], names: Sequence[str], *, stop: bool = False
) -> dict[str, Tap]:
    """Run `batches` through `model` as it is and return what went through the modules called `names`."""
    with tapped(model, names, stop=stop) as taps:
        for batch in batches:
            try:
                call(model, on_device(model, batch.inputs))
            except _Reached:
                continue
    return taps


def first_tensor(value: Any) -> Tensor | None:
    """Return `value` if it is a tensor, or the first entry of a tuple if that is one."""
    if isinstance(value, tuple | list) and value:
        value = value[0]
    return value if isinstance(value, Tensor) else None


def execution_order(model: nn.Module, batch: Batch, wanted: Sequence[str]) -> list[str]:
    """Return those of `wanted` that run exactly once in a forward pass, in the order in which they run."""
    order: list[str] = []
    modules = dict(model.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda *_, name=name: order.append(name)) for name in wanted
    ]
    try:
        with torch.no_grad():
            call(model, on_device(model, batch.inputs))
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in order if order.count(name) == 1]


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let norms use the statistics of each batch, without touching the running ones.

    While the layers before it are being replaced, running statistics describe a network that is gone.
    """
    norms = running_norms(model)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
