"""Train a small network on scikit-learn's digits and keep only its ONNX file: `python make.py`."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


def main() -> None:
    """Write digits.onnx and digits.npz."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    order = torch.randperm(len(x))
    train, held = order[:900], order[900:]
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(15):
        for part in train[torch.randperm(len(train))].split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    model.eval()
    print(
        f"accuracy {(model(x[held]).argmax(1) == y[held]).float().mean():.4f} on {len(held)} held-out images"
    )
    batch = torch.export.Dim("batch")
    torch.onnx.export(model, (x[:2],), "digits.onnx", dynamic_shapes=({0: batch},), external_data=False)
    parts = {f"x_{n}": x[i].numpy() for n, i in (("train", train), ("val", held))}
    np.savez("digits.npz", **parts, **{f"y_{n}": y[i].numpy() for n, i in (("train", train), ("val", held))})


if __name__ == "__main__":
    main()
