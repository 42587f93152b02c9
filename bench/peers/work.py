"""The work: trained networks with data in four parts, and how much time each tool may spend on them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.bases import weights
from bench.peers import attention
from bench.peers.piece import Samples, Work
from tersor.cli.digits import ConvNet, Perceptron, split_digits

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"


def fit(model: nn.Module, samples: Samples, epochs: int, lr: float, seed: int) -> nn.Module:
    """Train from scratch with SGD, momentum and a one-cycle schedule."""
    torch.manual_seed(seed)
    inputs, labels = samples.tensors(), torch.from_numpy(samples.labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * -(-len(samples) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(samples)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(*(array[rows] for array in inputs)), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def digits(network: Callable[[], nn.Module], name: str, seed: int, folder: Path) -> Work:
    parts = {part: Samples((images,), labels) for part, (images, labels) in split_digits(seed).items()}
    train = parts["train"]
    model = _trained(network, folder, lambda made: fit(made, train, 25, 0.05, seed), seed)
    return Work(name, model, train, parts["search"], parts["certification"], 0.01, 120.0)


def breast_cancer(seed: int, folder: Path) -> Work:
    """A perceptron on scikit-learn's 569 rows of 30 columns; so few sealed rows show no margin below 1.5 points."""
    from sklearn.datasets import load_breast_cancer

    rows, labels = load_breast_cancer(return_X_y=True)
    rows = ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(rows))
    train, search, sealed = (
        Samples((rows[part],), labels[part].astype(np.int64)) for part in np.split(order, [240, 320])
    )

    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(30, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2))

    model = _trained(network, folder, lambda made: fit(made, train, 20, 0.02, seed), seed)
    return Work("breast-cancer-mlp", model, train, search, sealed, 0.05, 120.0)


def resnet20(seed: int, folder: Path) -> Work:
    """The ResNet-20 of the example, with the weights that lie beside the data."""
    del seed, folder
    from examples.cifar10.data import splits
    from examples.cifar10.model import build

    model = build()
    model.load_state_dict(load_file(DATA / "resnet20_cifar10.safetensors"))
    parts = {part: Samples((images,), labels) for part, (images, labels) in splits().items()}
    return Work(
        "cifar-resnet20", model.eval(), parts["train"], parts["search"], parts["certification"], 0.01, 1800.0
    )


class Bottleneck(nn.Module):
    """Expand, filter each channel, project (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        hidden = expand * inputs
        self.layers = nn.Sequential(
            *(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            *(nn.BatchNorm2d(hidden), nn.ReLU6()),
            *(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.same else self.layers(x)


class SmallMobileNet(nn.Module):
    """A MobileNet of the second kind for 8x8 gray images."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU6()
        )
        shapes = ((width, width, 1), (width, 2 * width, 2), (2 * width, 2 * width, 1))
        self.blocks = nn.Sequential(*(Bottleneck(*shape) for shape in shapes))
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def _trained(
    build: Callable[[], nn.Module], folder: Path, train: Callable[[nn.Module], nn.Module], seed: int
) -> nn.Module:
    """Return the network with its stored weights, or train it and store them."""
    torch.manual_seed(seed)
    model, path = build(), folder / "weights.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    trained = train(model)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(trained.state_dict(), path)
    return trained


#: Name -> (network of a seed, kept in a folder).
WORK: dict[str, Callable[[int, Path], Work]] = {
    "digits-mlp": lambda seed, folder: digits(Perceptron, "digits-mlp", seed, folder),
    "digits-cnn": lambda seed, folder: digits(ConvNet, "digits-cnn", seed, folder),
    "digits-mobilenet": lambda seed, folder: digits(SmallMobileNet, "digits-mobilenet", seed, folder),
    "breast-cancer-mlp": breast_cancer,
    "cifar-resnet20": resnet20,
    "minilm-sst2": attention.minilm,
    "cifar-vit": attention.vit,
    "chargpt": attention.chargpt,
}
#: Work with a network whose weights are given: further seeds would repeat it.
ONE_SEED = {"cifar-resnet20", "minilm-sst2", "cifar-vit", "chargpt"}
#: Work that needs data beside the repository.
NEEDS_DATA = ONE_SEED
#: Work that starts from a trained base, and which.
NEEDS_BASE = {"minilm-sst2": "minilm", "cifar-vit": "vit", "chargpt": "chargpt"}


def missing(name: str) -> str:
    """Return what a piece of work needs and does not find, in words; empty where all is there."""
    if name in NEEDS_DATA and not DATA.is_dir():
        return "its data is not beside the repository"
    if name in NEEDS_BASE and not weights(NEEDS_BASE[name]).exists():
        return f"there is no bench/cache/bases/{NEEDS_BASE[name]}; bench/bases/README.md says how to train it"
    return ""
