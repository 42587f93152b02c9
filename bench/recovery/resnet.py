"""ResNet-20 for CIFAR-10, its stored weights, its data, and a student with half the inner channels."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from tersor.recovery.epochs import InMemory

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


class Block(nn.Module):
    def __init__(self, entering: int, width: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.short = nn.Sequential()
        if stride > 1:
            self.short = nn.Sequential(
                nn.Conv2d(entering, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x):
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(h + self.short(x))


class ResNet20(nn.Module):
    """Widths 16, 32, 64; `inner` channels between the two convolutions of each block."""

    def __init__(self, inner: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        blocks, entering = [], 16
        for stage, width in enumerate((16, 32, 64)):
            for index in range(3):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(Block(entering, width, inner[stage], stride))
                entering = width
        self.layers, self.fc = nn.ModuleList(blocks), nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for block in self.layers:
            x = block(x)
        return self.fc(x.mean((2, 3)))


def teacher(data: Path) -> ResNet20:
    model = ResNet20()
    model.load_state_dict(load_file(data / "resnet20_cifar10.safetensors"), strict=False)
    return model.eval()


def half(model: ResNet20) -> tuple[ResNet20, dict[str, list[int]]]:
    """Keep the half of each block's inner channels with the largest |scale| * |weight|; return which they are."""
    student, kept = ResNet20((8, 16, 32)), {}
    state, own = model.state_dict(), student.state_dict()
    for name in own:
        if state[name].shape == own[name].shape:
            own[name] = state[name]
    for index in range(9):
        at = f"layers.{index}."
        score = state[at + "bn1.weight"].abs() * state[at + "conv2.weight"].flatten(2).norm(dim=2).norm(dim=0)
        keep = score.argsort(descending=True)[: len(score) // 2].sort().values
        kept[at + "conv1"] = keep.tolist()
        own[at + "conv1.weight"] = state[at + "conv1.weight"][keep]
        own[at + "conv2.weight"] = state[at + "conv2.weight"][:, keep]
        for part in ("weight", "bias", "running_mean", "running_var"):
            own[f"{at}bn1.{part}"] = state[f"{at}bn1.{part}"][keep]
    student.load_state_dict(own)
    return student.eval(), kept


def samples(data: Path, file: str, start: int, count: int) -> InMemory:
    rows = pq.read_table(data / "cifar10" / file).slice(start, count).to_pylist()
    images = np.stack([np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows])
    scaled = (images.astype(np.float32) - MEAN) / STD
    x = torch.from_numpy(scaled.astype(np.float32)).permute(0, 3, 1, 2).contiguous()
    return InMemory(x, torch.tensor([row["label"] for row in rows]))


@torch.no_grad()
def accuracy(model: nn.Module, split: InMemory) -> float:
    right = sum((model(b.inputs[0]).argmax(1) == b.target).sum().item() for b in split.batches(250))
    return right / len(split)
