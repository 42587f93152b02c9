"""Elementwise optimizers in one pass over memory, where torch has only a loop of separate operations.

A rule is written once, as operations on one-dimensional pieces. It runs in two ways: on blocks that stay in the
processor's cache, and, once a run is long enough to repay the compilation, as one compiled kernel.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

#: Updates (weight, gradient, *state) in place, given the coefficients of this step; the gradient is only read.
Rule: TypeAlias = Callable[..., None]

#: Elements per block: a few arrays of them stay in a second-level cache of 1 MiB.
BLOCK = 65_536
#: Elements times steps after which compiling (about 10 s) repays itself at 1 ns saved for each.
WORTH_COMPILING = 10_000_000_000


class SinglePass(torch.optim.Optimizer):
    """Base of optimizers whose update of an entry depends on that entry alone.

    A subclass names its state buffers, its rule, and the coefficients of a step. When to compile is
    decided by the amount of work alone, never by a clock, so that a resumed run takes the same steps.

    Attributes:
        buffers: names of the state tensors, each of the shape of its parameter and zero at first.
        rule: the update.
    """

    buffers: tuple[str, ...] = ()
    rule: Rule

    def coefficients(self, group: dict[str, Any], step: int, /) -> tuple[float, ...]:
        """Return the numbers that `rule` takes at `step` (from 1), after weight, gradient and buffers."""
        raise NotImplementedError

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
        for step, pieces in by_step(present, self.state):
            numbers = self.coefficients(group, step)
            run = _compiled(type(self).rule) if work * step >= WORTH_COMPILING else _blocks(type(self).rule)
            for bundle in bundles([self._row(p) for p in pieces]):
                run(bundle, numbers)

    def _row(self, parameter: Tensor) -> "Row":
        assert parameter.grad is not None
        return parameter, parameter.grad, *(self.state[parameter][name] for name in self.buffers)


Row: TypeAlias = tuple[Tensor, ...]


def by_step(
    parameters: list[Tensor], state: dict[Tensor, dict[str, Any]]
) -> Iterator[tuple[int, list[Tensor]]]:
    """Yield parameters together that have taken the same number of steps."""
    steps = sorted({state[p]["step"] for p in parameters})
    for step in steps:
        yield step, [p for p in parameters if state[p]["step"] == step]


def bundles(rows: list[Row]) -> Iterator[list[Row]]:
    """Yield rows in bundles of at most a block, so that many small tensors cost one call; large ones go alone."""
    bundle: list[Row] = []
    for row in rows:
        fits = bundle and sum(r[0].numel() for r in bundle) + row[0].numel() <= BLOCK
        alike = bundle and row[0].dtype == bundle[0][0].dtype and row[0].device == bundle[0][0].device
        if bundle and not (fits and alike):
            yield bundle
            bundle = []
        bundle.append(row)
    if bundle:
        yield bundle


def _blocks(rule: Rule) -> Callable[[list[Row], tuple[float, ...]], None]:
    def run(bundle: list[Row], numbers: tuple[float, ...]) -> None:
        columns = gather(bundle)
        for pieces in zip(*(column.split(BLOCK) for column in columns), strict=True):
            rule(*pieces, *numbers)
        scatter(columns, bundle)

    return run


def gather(bundle: list[Row]) -> Row:
    """Return each column of a bundle as one dimension: a view where it can be one, else a copy."""
    if len(bundle) == 1 and all(t.is_contiguous() for t in bundle[0]):
        return tuple(t.view(-1) for t in bundle[0])
    return tuple(torch.cat([t.reshape(-1) for t in column]) for column in zip(*bundle, strict=True))


def scatter(columns: Row, bundle: list[Row]) -> None:
    """Write columns that are copies back to their tensors; gradients are left as they were."""
    if columns[0].data_ptr() == bundle[0][0].data_ptr():
        return
    sizes = [row[0].numel() for row in bundle]
    for index, column in enumerate(columns):
        if index != 1:
            pieces = column.split(sizes)
            torch._foreach_copy_(
                [row[index] for row in bundle],
                [piece.view(row[index].shape) for piece, row in zip(pieces, bundle, strict=True)],
            )


class Kernel:
    """A rule compiled for any length, which becomes the rule in blocks where nothing can be compiled.

    Args:
        rule: to compile when first called.
    """

    def __init__(self, rule: Rule) -> None:
        # Dynamic: one kernel serves every length.
        self._kernel = torch.compile(_packed(rule), dynamic=True, fullgraph=True)
        self._fallback = _blocks(rule)
        self._works = True

    def __call__(self, bundle: list[Row], numbers: tuple[float, ...]) -> None:
        """Update the tensors of `bundle` in place."""
        weight, columns = bundle[0][0], gather(bundle)
        if self._works:
            try:
                self._kernel(columns, torch.tensor(numbers, dtype=weight.dtype, device=weight.device))
                return scatter(columns, bundle)
            except (RuntimeError, OSError):
                # No C++ compiler, or a cache folder that cannot be written: compilation comes before the
                # first change of a tensor, so the step can still be taken.
                self._works = False
        return self._fallback(bundle, numbers)


def _packed(rule: Rule) -> Callable[[Row, Tensor], None]:
    def packed(columns: Row, numbers: Tensor) -> None:
        # Numbers travel as a tensor: as Python floats, each new learning rate would compile again.
        rule(*columns, *numbers.unbind())

    return packed


#: One kernel for each rule and process.
_compiled = cache(Kernel)
