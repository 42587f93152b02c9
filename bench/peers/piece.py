"""A piece of work: a trained network, its samples in parts, and what each tool may spend on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Samples:
    """Samples with their labels; row i of every array is sample i.

    Attributes:
        inputs: what the network takes, in the order of its arguments.
        labels: one class a sample.
    """

    inputs: tuple[np.ndarray, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | np.ndarray) -> "Samples":
        return Samples(tuple(array[rows] for array in self.inputs), self.labels[rows])

    def batches(self, size: int) -> Iterator["Samples"]:
        """Yield the samples in their order; the last batch may be shorter."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the inputs as tensors."""
        return tuple(map(torch.from_numpy, self.inputs))

    def columns(self) -> tuple[np.ndarray, ...]:
        """Return the inputs and then the labels: one data set, as `tersor.optimize` takes it."""
        return (*self.inputs, self.labels)


@dataclass(frozen=True)
class Work:
    """One piece of work.

    Attributes:
        name: short name.
        model: the trained network.
        train: samples to train with; calibration takes some of them, without labels.
        search: samples to choose with.
        sealed: samples that only the last evaluation reads.
        margin: drop of accuracy that is accepted, absolute.
        budget_s: time that each tool may take, seconds.
        attention: whether it is a network of attention: tools have settings for those, and AdamW trains them.
        lr: peak rate of fine-tuning.
        about: what the reader should know about it.
    """

    name: str
    model: nn.Module
    train: Samples
    search: Samples
    sealed: Samples
    margin: float
    budget_s: float
    attention: bool = False
    lr: float = 0.01
    about: str = ""

    @property
    def example(self) -> tuple[Tensor, ...]:
        """A small real batch."""
        return self.train[:2].tensors()

    @property
    def calibration(self) -> Samples:
        """Samples for ranges, whose labels no tool reads: 300, as NNCF takes."""
        return self.train[:300]

    @cached_property
    def answers(self) -> np.ndarray:
        """The classes that the network gives the sealed samples."""
        return answers(self.model, self.sealed)


def answers(model: nn.Module, samples: Samples) -> np.ndarray:
    """Return the classes that the module gives."""
    model.eval()
    with torch.no_grad():
        parts = [model(*part.tensors()).argmax(1) for part in samples.batches(256)]
    return torch.cat(parts).numpy()


def accuracy(model: nn.Module, samples: Samples) -> float:
    """Return the share of samples that the module gets right."""
    return float((answers(model, samples) == samples.labels).mean())
