"""A module, a metric and a loss of one's own: how far a ball flies, from speed, angle and wind."""

import numpy as np
import torch
from torch import Tensor, nn


class Range(nn.Module):
    """Two hidden layers."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.distance = nn.Linear(width, 1)

    def forward(self, throws: Tensor) -> Tensor:
        """Return distances in meters, shape (throws, 1)."""
        return self.distance(self.layers(throws)) * 100


def throws(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return speed, angle and wind, scaled to about one, and the distance in meters."""
    speed, angle, wind = np.random.default_rng(seed).uniform((10, 0.2, -3), (30, 1.4, 3), (count, 3)).T
    meters = speed**2 * np.sin(2 * angle) / 9.81 + wind * 2 * speed * np.sin(angle) / 9.81
    x = np.stack([speed / 20 - 1, angle - 0.8, wind / 3], axis=1)
    return x.astype(np.float32), meters[:, None].astype(np.float32)


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the throws to learn from and held-out ones."""
    return {"train": throws(6000, 0), "validation": throws(6000, 1)}


def within_two_meters(preds: Tensor, target: Tensor) -> Tensor:
    """Return the fraction of throws foretold to two meters."""
    return ((preds - target).abs() < 2).float().mean()


def build() -> Range:
    """Return the trained network."""
    torch.manual_seed(0)
    model, (x, y) = Range(), map(torch.from_numpy, throws(6000, 0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        for part in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.smooth_l1_loss(model(x[part]), y[part]).backward()
            optimizer.step()
    return model.eval()
