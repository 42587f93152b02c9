"""Keep a model's configuration true to its sizes, so that the model can be built from it again."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tersor.graph.integers import is_config, public_fields, with_fields
from tersor.graph.trace import named_tensors

#: Where a number is in a configuration: names of configurations inside, then that of the field.
Field = tuple[str, ...]
#: Rounds over all fields; one settles all but fields that others are divided by.
ROUNDS = 2


def follow_sizes(model: nn.Module, original: nn.Module) -> dict[str, tuple[int, int]]:
    """Set, in place, the numbers in `model.config` to the sizes that a cut left, if a model can be built from them.

    Models that take all their sizes from one configuration, as those of `transformers` do, are built from it
    anew on loading. Where every layer was cut alike, some choice of its numbers gives the cut model; it is
    searched field by field, by building on the meta device and comparing shapes. Where layers
    differ no choice does, and the configuration stays.

    Args:
        model: what `apply(original, plan, graph)` made.
        original: the model before.

    Returns:
        The fields that changed, by dotted name, with the old and the new number; empty where none fits.

    Example:
        >>> follow_sizes(nn.Linear(2, 1), nn.Linear(4, 1))
        {}
    """
    config = vars(original).get("config")
    if not is_config(config):
        return {}
    wanted = {name: tuple(tensor.shape) for name, tensor in named_tensors(model).items()}
    sizes = _new_sizes(wanted, original)
    best, found = _matches(original, config, wanted), dict[Field, int]()
    trials = [
        (field, size) for field, old in _numbers(config) for size in sorted(sizes.get(old, ()), reverse=True)
    ]
    for field, size in trials * ROUNDS:
        trial = _matches(original, _changed(config, {**found, field: size}), wanted)
        if trial > best:
            best, found = trial, {**found, field: size}
    if best < len(wanted) or not found:
        return {}
    vars(model)["config"] = _changed(config, found)
    old = dict(_numbers(config))
    return {".".join(field): (old[field], size) for field, size in found.items()}


def _new_sizes(wanted: dict[str, tuple[int, ...]], original: nn.Module) -> dict[int, set[int]]:
    """Return which new sizes axes of each old size got; a number of heads is found as a ratio of two of them."""
    sizes: dict[int, set[int]] = {}
    for name, tensor in named_tensors(original).items():
        for old, new in zip(tensor.shape, wanted.get(name, tensor.shape), strict=True):
            sizes.setdefault(int(old), set()).add(int(new))
    whole = {old: new for old, new in sizes.items() if new != {old}}
    for heads in range(2, 129):
        for old, new in whole.items():
            if old % heads == 0:
                each = old // heads
                sizes.setdefault(heads, set()).update(n // each for n in new if n % each == 0)
                sizes.setdefault(each, set()).update(n // heads for n in new if n % heads == 0)
    return sizes


def _matches(original: nn.Module, config: Any, wanted: dict[str, tuple[int, ...]]) -> int:
    """Return how many tensors a model built from a configuration has in the shapes wanted; -1 if it has others."""
    try:
        with torch.device("meta"):
            made = named_tensors(type(original)(config))
    except Exception:  # a configuration of sizes that do not go together may raise anything
        return -1
    if set(made) != set(wanted):
        return -1
    return sum(tuple(tensor.shape) == wanted[name] for name, tensor in made.items())


def _numbers(config: Any, above: Field = ()) -> Iterator[tuple[Field, int]]:
    """Yield every whole number above one in a configuration and in those inside it."""
    for key, value in public_fields(config).items():
        if is_config(value):
            yield from _numbers(value, (*above, key))
        elif type(value) is int and value > 1:
            yield (*above, key), value


def _changed(config: Any, fields: dict[Field, int]) -> Any:
    """Return a copy of a configuration with other numbers."""
    made = copy.copy(config)
    for field, size in fields.items():
        made = _set(made, field, size)
    return made


def _set(config: Any, field: Field, size: int) -> Any:
    first, rest = field[0], field[1:]
    return with_fields(config, {first: _set(vars(config)[first], rest, size) if rest else size})
