"""The table from the name of an ATen operation to its rule."""

from collections.abc import Callable
from typing import TypeAlias

from tersor.graph.labels import Call, Labels

Rule: TypeAlias = Callable[[Labels, Call], None]

RULES: dict[str, Rule] = {}
#: Operations that compute statistics over an axis: with removed units they see the kept ones only.
STATISTICS: set[str] = set()


def rule(*names: str, statistic: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for operations; a name that ends in `_` is the in-place form."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        if statistic:
            STATISTICS.update(names)
        return function

    return register


def find(name: str) -> Rule | None:
    """Return the rule of an operation, or that of its form that is not in place."""
    return RULES.get(name) or RULES.get(name.removesuffix("_"))


def apply_rule(labels: Labels, call: Call) -> None:
    """Label the outputs of one call; without a rule, freeze what it touches."""
    labels.contracted.clear()
    if not call.outputs and not call.writes:
        return  # it reads a shape or a value, and gives no tensor
    known = find(call.name)
    if known is None:
        labels.give_up(call)
    else:
        known(labels, call)
