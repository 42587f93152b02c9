"""The masked oracle: the original model, evaluated with removed units excluded.

Every operation runs at its full size. Removed positions of its result are set
to zero, and operations that compute statistics see the kept positions only.
The slicer shares no code with it: a wrong coupling, a wrong size or a changed
scale appears as a difference.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tersor.graph.labels import Call, Labels, bind
from tersor.graph.modes import plain_attention, replica
from tersor.graph.rules.registry import STATISTICS, apply_rule
from tersor.graph.structure import Graph, Kept
from tersor.graph.trace import named_tensors, outputs_of
from tersor.loading.inputs import Inputs, call

Kepts = list[Tensor | None]


def masked_outputs(
    model: nn.Module, inputs: Inputs, graph: Graph, kept: Kept, *, dropped: Sequence[str] = (), seed: int = 0
) -> list[Tensor]:
    """Return the outputs of `model` with removed units excluded and dropped blocks passed over.

    Args:
        model: the original model; it is not changed.
        inputs: what to call it with.
        graph: its trace.
        kept: kept units by group name.
        dropped: names of blocks that give back their input, and of branches that give zeros.
        seed: seed of torch's generator during the pass, for models that draw noise.
    """
    return mask_and_run(replica(model, share=False), inputs, graph, kept, dropped=dropped, seed=seed)


def mask_and_run(
    original: nn.Module,
    inputs: Inputs,
    graph: Graph,
    kept: Kept,
    *,
    dropped: Sequence[str] = (),
    seed: int = 0,
) -> list[Tensor]:
    """Return what `masked_outputs` does, of a copy in evaluation mode that is given away: its weights are changed.

    Args:
        original: a copy of the original model.
        inputs: what to call it with.
        graph: its trace.
        kept: as for `masked_outputs`, like all that follow.
        dropped: blocks to pass over.
        seed: seed of torch's generator.
    """
    oracle = _Masks(graph, graph.removed(kept))
    with torch.no_grad():
        for name, tensor in named_tensors(original).items():
            oracle.name(name, tensor)
        for name in dropped:
            _pass_over(original.get_submodule(name), nothing=name in graph.branches)
        torch.manual_seed(seed)
        with plain_attention(), oracle:
            return outputs_of(call(original, inputs))


def _pass_over(module: nn.Module, *, nothing: bool) -> None:
    """Make a module give its first argument back, or zeros, in the form of its own output."""

    def hook(_: nn.Module, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
        given = args[0] if args else next(iter(kwargs.values()))
        given = torch.zeros_like(given) if nothing else given
        return type(out)((given, *out[1:])) if isinstance(out, tuple) else given

    module.register_forward_hook(hook, with_kwargs=True)


class _Masks(TorchDispatchMode):
    """Label every tensor as in the trace, and hold removed positions at zero."""

    def __init__(self, graph: Graph, removed: np.ndarray) -> None:
        super().__init__()
        self.graph, self.removed = graph, removed
        self.labels = Labels()
        self.units = self.labels.cells.fresh(graph.units)
        self._marked, self._lost = (-1, 0), np.zeros(0, bool)

    def name(self, name: str, tensor: Tensor) -> None:
        """Label a parameter or buffer by its units, and zero what is removed."""
        axes = []
        for axis, size in enumerate(tensor.shape):
            extent = self.graph.extents.get((name, axis))
            slots = extent.slots if extent is not None and size > 1 else ()
            axes.append([np.where(slot >= 0, slot, -2) for slot in slots])
        self.labels.name(tensor, axes)
        self._zero(tensor, self._kept(tensor))

    def _gone(self) -> np.ndarray:
        """Return for every cell whether it is, or was united with, a removed unit; the last entry is false."""
        cells = self.labels.cells
        if self._marked != (cells.version, len(cells.parent)):
            self._marked = (cells.version, len(cells.parent))
            self._lost = np.zeros(len(cells.parent) + 2, bool)
            self._lost[cells.roots(self.units[self.removed[:-1]])] = True
        return self._lost

    def _kept(self, tensor: Tensor) -> Kepts | None:
        """Return for every axis the kept indices, or None where all stay."""
        axes = self.labels.of(tensor)
        if not any(axes):
            return None
        gone, kept = self._gone(), []
        for axis, size in zip(axes, tensor.shape, strict=True):
            lost = np.zeros(size, bool)
            for vector in axis:
                lost |= gone[np.where(vector >= 0, vector, -1)]
            kept.append(torch.from_numpy(np.flatnonzero(~lost)).to(tensor.device) if lost.any() else None)
        return kept if any(k is not None for k in kept) else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation at full size, with removed positions excluded."""
        kwargs = kwargs or {}
        before = bind(func, args, kwargs, None)
        out = self._statistic(func, before) if before.name.removesuffix("_") in STATISTICS else None
        if out is None:
            out = func(*args, **kwargs)
        done = bind(func, args, kwargs, out)
        apply_rule(self.labels, done)
        if not _moves_data(func):
            for tensor in done.outputs:
                self._zero(tensor, self._kept(tensor))
        return out

    def _zero(self, tensor: Tensor, kept: Kepts | None) -> None:
        if kept is None or not (tensor.is_floating_point() or tensor.is_complex()):
            return
        for axis, indices in enumerate(kept):
            if indices is not None:
                gone = torch.ones(tensor.shape[axis], dtype=torch.bool, device=tensor.device)
                gone[indices] = False
                shape = [1] * tensor.dim()
                shape[axis] = -1
                tensor.masked_fill_(gone.view(shape), 0)

    def _statistic(self, func: Any, before: Call) -> Any:
        """Run a statistic on the kept positions of its operands, and spread the result out again."""
        source = before.tensors[0] if before.tensors else None
        if source is None or not any(self._kept(tensor) for tensor in before.tensors):
            return None
        compact = {name: self._compact(value) for name, value in before.args.items()}
        first = next(value for value in compact.values() if isinstance(value, Tensor))
        if "normalized_shape" in compact:
            count = len(compact["normalized_shape"])
            compact["normalized_shape"] = list(first.shape[first.dim() - count :])
        if before.name == "native_group_norm":
            compact |= self._group_norm_sizes(source, first, before)
        shrunk = _run(func, compact)
        probe = bind(func, (), before.args, _full_like(func, before))
        apply_rule(self.labels, probe)
        results = [
            self._spread(small, full) for small, full in zip(_list(shrunk), probe.outputs, strict=False)
        ]
        return results[0] if isinstance(shrunk, Tensor) else tuple(results)

    def _group_norm_sizes(self, source: Tensor, first: Tensor, before: Call) -> dict[str, int]:
        kept = self._kept(source)
        channels, groups = int(source.shape[1]), int(before["group"])
        if kept is not None and kept[1] is not None:
            groups = len(torch.unique(kept[1] // (channels // groups)))
        return {"C": int(first.shape[1]), "group": groups, "N": int(first.shape[0])}

    def _compact(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        for axis, indices in enumerate(self._kept(value) or ()):
            if indices is not None:
                value = value.index_select(axis, indices)
        return value

    def _spread(self, small: Tensor, full: Tensor) -> Tensor:
        kept = self._kept(full)
        if kept is None or small.shape == full.shape:
            self.labels.put(small, self.labels.of(full))
            return small
        grid = torch.zeros(full.shape, dtype=small.dtype, device=small.device)
        rows = [
            torch.arange(n, device=small.device) if k is None else k
            for n, k in zip(full.shape, kept, strict=True)
        ]
        grid[torch.meshgrid(*rows, indexing="ij")] = small
        return grid


def _list(value: Any) -> Sequence[Tensor]:
    return [value] if isinstance(value, Tensor) else [v for v in value if isinstance(v, Tensor)]


def _run(func: Any, named: dict[str, Any]) -> Any:
    """Call an operation by its schema: positional arguments first, keyword-only ones by name."""
    args = [named[a.name] for a in func._schema.arguments if not a.kwarg_only]
    kwargs = {a.name: named[a.name] for a in func._schema.arguments if a.kwarg_only}
    return func(*args, **kwargs)


def _full_like(func: Any, before: Call) -> Any:
    """Return the operation's result at full size; only its shape is wanted."""
    return _run(func, before.args)


def _moves_data(func: Any) -> bool:
    """Whether the result shares memory with an operand that is not written to."""
    returns = func._schema.returns
    return any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
