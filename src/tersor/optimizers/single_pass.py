"""Elementwise optimizers in one pass over memory, where torch has only a loop of separate operations.

A rule is written once, as operations on one-dimensional pieces. It runs in two ways: on blocks that stay in the
processor's cache, and, once a run is long enough to repay the compilation, as one compiled kernel.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

#: Updates (weight, gradient, *state) in place, given the coefficients of this step; the gradient is only read.
Rule: TypeAlias = Callable[..., None]
#: Weight, gradient and state, in one dimension.
Columns: TypeAlias = tuple[Tensor, ...]

#: Elements per block: a few arrays of them stay in a second-level cache of 1 MiB.
BLOCK = 65_536
#: Tensors smaller than a block are gathered into bundles of at most this many elements.
BUNDLE = 16 * BLOCK
#: Elements times steps after which compiling (about 10 s) repays itself at 1 ns saved for each.
WORTH_COMPILING = 10_000_000_000


class SinglePass(torch.optim.Optimizer, ABC):
    """Base of optimizers whose update of an entry depends on that entry alone.

    A subclass names its state buffers, its rule, and the coefficients of a step. When to compile is
    decided by the amount of work alone, never by a clock, so that a resumed run takes the same steps.

    Attributes:
        buffers: names of the state tensors, each of the shape of its parameter and zero at first.
        rule: the update.
    """

    buffers: tuple[str, ...] = ()
    rule: Rule

    def __init__(self, groups: list[dict[str, Any]], defaults: dict[str, Any]) -> None:
        self._bundles: dict[tuple[int, ...], Bundle] = {}
        super().__init__(groups, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Also called when a state is loaded: the tensors of bundles are then no longer those of the state.
        super().__setstate__(state)
        self._bundles = {}

    @abstractmethod
    def coefficients(self, group: dict[str, Any], step: int, /) -> tuple[float, ...]:
        """Return the numbers that `rule` takes at `step` (from 1), after weight, gradient and buffers."""

    def start(self, parameter: Tensor) -> dict[str, Any]:
        """Return the state of a parameter before its first step."""
        return {"step": 0, **{name: torch.zeros_like(parameter) for name in self.buffers}}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride] - torch overloads it
        """Take one step; parameters without a gradient stay as they are."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            self.step_group(group)
        return value

    def step_group(self, group: dict[str, Any]) -> None:
        """Take one step of one group."""
        present = [p for p in group["params"] if p.grad is not None]
        for parameter in present:
            if not self.state[parameter]:
                self.state[parameter] = self.start(parameter)
            self.state[parameter]["step"] += 1
        work = sum(p.numel() for p in present)
        for step in sorted({self.state[p]["step"] for p in present}):
            numbers = self.coefficients(group, step)
            run = _compiled(type(self).rule) if work * step >= WORTH_COMPILING else Blocks(type(self).rule)
            for bundle in bundles([p for p in present if self.state[p]["step"] == step]):
                self._update(bundle, run, numbers)

    def _update(self, parameters: list[Tensor], run: "Runner", numbers: tuple[float, ...]) -> None:
        first, gradient = parameters[0], parameters[0].grad
        assert gradient is not None
        columns = (first, gradient, *(self.state[first][name] for name in self.buffers))
        if len(parameters) == 1 and all(t.is_contiguous() for t in columns):
            # Detached: a kernel is compiled again for tensors that want gradients.
            return run(tuple(t.detach().view(-1) for t in columns), numbers)
        key = tuple(id(p) for p in parameters)
        if key not in self._bundles:
            # Another division of the same tensors: the views of an older one are out of date.
            stale = set(key)
            self._bundles = {k: v for k, v in self._bundles.items() if not stale.intersection(k)}
            self._bundles[key] = Bundle(parameters, self.state, self.buffers)
        return self._bundles[key].update(run, numbers)


Runner: TypeAlias = Callable[[Columns, tuple[float, ...]], None]


class Bundle:
    """Small tensors that are updated as one, so that they cost one call; their state lives in one piece.

    Args:
        parameters: of one dtype and device.
        state: of the optimizer; its buffers become views of the common piece.
        buffers: names of the buffers.
    """

    def __init__(
        self, parameters: list[Tensor], state: dict[Tensor, dict[str, Any]], buffers: tuple[str, ...]
    ) -> None:
        self._parameters = parameters
        total = sum(p.numel() for p in parameters)
        weight, gradient = parameters[0].new_empty(total), parameters[0].new_empty(total)
        self._weights, self._gradients = self._shaped(weight), self._shaped(gradient)
        pieces = [torch.cat([state[p][name].reshape(-1) for p in parameters]) for name in buffers]
        for name, piece in zip(buffers, pieces, strict=True):
            for parameter, view in zip(parameters, self._shaped(piece), strict=True):
                state[parameter][name] = view
        self._columns = (weight, gradient, *pieces)

    def _shaped(self, flat: Tensor) -> list[Tensor]:
        parts = flat.split([p.numel() for p in self._parameters])
        return [part.view(p.shape) for part, p in zip(parts, self._parameters, strict=True)]

    def update(self, run: Runner, numbers: tuple[float, ...]) -> None:
        """Gather weights and gradients, run, and write the weights back."""
        torch._foreach_copy_(self._weights, self._parameters)
        torch._foreach_copy_(self._gradients, [p.grad for p in self._parameters if p.grad is not None])
        run(self._columns, numbers)
        torch._foreach_copy_(self._parameters, self._weights)


def bundles(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors of a block or more alone, and smaller ones together, by dtype and device."""
    waiting: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    sizes: dict[tuple[torch.dtype, torch.device], int] = {}
    for parameter in parameters:
        if parameter.numel() >= BLOCK:
            yield [parameter]
            continue
        kind = parameter.dtype, parameter.device
        if sizes.get(kind, 0) + parameter.numel() > BUNDLE:
            yield waiting.pop(kind)
            sizes[kind] = 0
        waiting.setdefault(kind, []).append(parameter)
        sizes[kind] = sizes.get(kind, 0) + parameter.numel()
    yield from waiting.values()


class Blocks:
    """A rule run on one block after another, by torch's own operations."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def __call__(self, columns: Columns, numbers: tuple[float, ...]) -> None:
        """Update the columns in place."""
        for pieces in zip(*(column.split(BLOCK) for column in columns), strict=True):
            self._rule(*pieces, *numbers)


class Kernel:
    """A rule compiled for any length, which becomes the rule in blocks where nothing can be compiled.

    Args:
        rule: to compile when first called.
    """

    def __init__(self, rule: Rule) -> None:
        # Dynamic: one kernel serves every length.
        self._kernel = torch.compile(rule, dynamic=True, fullgraph=True)
        self._fallback = Blocks(rule)
        self.works = True

    def __call__(self, columns: Columns, numbers: tuple[float, ...]) -> None:
        """Update the columns in place."""
        if self.works:
            try:
                # Numbers travel as tensors: as Python floats, each new learning rate would compile again.
                return self._kernel(
                    *columns,
                    *torch.tensor(numbers, dtype=columns[0].dtype, device=columns[0].device).unbind(),
                )
            except Exception:
                # No C++ compiler, a cache folder that cannot be written, a compiler that gives up: compilation
                # comes before the first change of a tensor, so the step can still be taken.
                self.works = False
        return self._fallback(columns, numbers)


#: One kernel for each rule and process.
_compiled = cache(Kernel)
