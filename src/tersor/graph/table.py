"""The groups of a model, printed."""

from torch import nn

from tersor.graph.groups import Group
from tersor.graph.trace import trace
from tersor.loading.inputs import Inputs


def groups(model: nn.Module, inputs: Inputs) -> tuple[Group, ...]:
    """Trace a model, print its groups as a table, and return them.

    Args:
        model: the model; it is not changed.
        inputs: example inputs: a tensor, a tuple, or a mapping of names.

    Returns:
        Every group: those that can be pruned, and those that must stay with the reason.

    Example:
        >>> import torch
        >>> found = groups(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), (torch.zeros(1, 4),))
        group  kind    units  parameters/unit  MACs/unit  prunable
        0      hidden  8      7                6          yes
        1      hidden  2      9                8          is an output of the model
    """
    graph = trace(model, inputs)
    print(graph.table())
    return graph.groups
