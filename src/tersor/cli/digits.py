"""The demo's data and networks: scikit-learn's 1,797 handwritten digits, bundled with it, and two classifiers."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tersor._extras import require

#: Images and labels of each split.
Splits = dict[str, tuple[np.ndarray, np.ndarray]]
#: Samples to train and to search with; the rest, 647, is sealed.
_TRAIN, _SEARCH = 900, 250


class ConvNet(nn.Module):
    """Four convolutions with batch normalisation and one residual connection, for 8x8 gray images."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.block = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.down = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))

    def forward(self, image: Float[Tensor, "batch 1 8 8"]) -> Float[Tensor, "batch 10"]:
        """Return one logit per digit."""
        x = self.stem(image)
        x = torch.relu(x + self.block(x))
        return self.head(self.down(x))


class Perceptron(nn.Module):
    """A multilayer perceptron: dense layers with ReLU between them."""

    def __init__(self, hidden: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 10),
        )

    def forward(self, image: Float[Tensor, "batch 1 8 8"]) -> Float[Tensor, "batch 10"]:
        """Return one logit per digit."""
        return self.layers(image)


NETWORKS: dict[str, type[nn.Module]] = {"cnn": ConvNet, "mlp": Perceptron}


def load_digits() -> tuple[Float[np.ndarray, "1797 1 8 8"], np.ndarray]:
    """Return the images, scaled to [0, 1], and the digits 0 to 9.

    Raises:
        MissingExtraError: if scikit-learn is not installed.
    """
    require("sklearn", extra="sklearn", purpose="The demo's data set")
    from sklearn.datasets import load_digits as load

    images, labels = load(return_X_y=True)
    pixels = np.asarray(images, np.float32).reshape(-1, 1, 8, 8) / 16.0
    return pixels, np.asarray(labels, np.int64)


def split_digits(seed: int = 0) -> Splits:
    """Return the digits, shuffled, as train, search and certification samples."""
    images, labels = load_digits()
    order = np.random.default_rng(seed).permutation(len(images))
    parts = np.split(order, [_TRAIN, _TRAIN + _SEARCH])
    return {
        name: (images[part], labels[part])
        for name, part in zip(("train", "search", "certification"), parts, strict=True)
    }
