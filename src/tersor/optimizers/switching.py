"""Optimizers that train at one point and evaluate at another."""

import torch


class Switching(torch.optim.Optimizer):
    """An optimizer whose parameters, while it trains, are not those to evaluate with."""

    def to_evaluation_point(self) -> None:
        """Set the parameters to the point to evaluate and to save; steps are then refused."""
        raise NotImplementedError

    def to_training_point(self) -> None:
        """Set the parameters back to where gradients are taken."""
        raise NotImplementedError
