"""Optimizers that train at one point and evaluate at another."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Switching(torch.optim.Optimizer, ABC):
    """An optimizer whose parameters, while it trains, are not those to evaluate with."""

    @abstractmethod
    def to_evaluation_point(self) -> None:
        """Set the parameters to the point to evaluate and to save; steps are then refused."""

    @abstractmethod
    def to_training_point(self) -> None:
        """Set the parameters back to where gradients are taken."""


@contextmanager
def evaluation_point(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let the parameters of `optimizer` be those to evaluate with for a while, where the two differ."""
    if isinstance(optimizer, Switching):
        optimizer.to_evaluation_point()
    yield
    if isinstance(optimizer, Switching):
        optimizer.to_training_point()
