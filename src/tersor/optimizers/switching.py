"""Optimizers that train at one point and evaluate at another."""

from abc import ABC, abstractmethod

import torch


class Switching(torch.optim.Optimizer, ABC):
    """An optimizer whose parameters, while it trains, are not those to evaluate with."""

    @abstractmethod
    def to_evaluation_point(self) -> None:
        """Set the parameters to the point to evaluate and to save; steps are then refused."""

    @abstractmethod
    def to_training_point(self) -> None:
        """Set the parameters back to where gradients are taken."""
