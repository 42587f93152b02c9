"""The networks and data of the benchmark, one function a row; None where the data is missing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from bench.bases import weights
from tersor.cli.demo import trained
from tersor.cli.digits import split_digits
from tersor.loading.build import build_task
from tersor.loading.split import Shares
from tersor.loading.task import Task
from tersor.search.events import silent

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Row:
    """A task of the benchmark.

    Attributes:
        name: of the row.
        model: the trained network.
        data: splits, as `tersor.optimize` takes them.
        max_drop: the limit.
        budget: time of each contender.
        shares: how the data is divided where it is not, and what is left out of it.
        metric: name of the metric; None infers it from the labels.
    """

    name: str
    model: nn.Module
    data: dict
    max_drop: str
    budget: str
    shares: Shares = field(default_factory=Shares)
    metric: str | None = None

    def task(self) -> Task:
        """Return the task, as a search makes it of the row."""
        return build_task(self.model, self.data, metric=self.metric, shares=self.shares, seed=0).task


def digits(kind: str) -> Row:
    """Return a network of the demo, on scikit-learn's digits."""
    splits = split_digits(0)
    model = trained(kind, "adamw", splits["train"], 0, silent)
    return Row(f"digits {kind}", model, splits, "0.02", "2m")


def cifar10() -> Row | None:
    """Return the ResNet-20 of examples/cifar10."""
    if not DATA.is_dir():
        return None
    from examples.cifar10.data import splits
    from examples.cifar10.model import build

    model = build()
    model.load_state_dict(load_file(DATA / "resnet20_cifar10.safetensors"))
    return Row("resnet20 cifar10", model.eval(), splits(), "1%", "10m")


def minilm() -> Row | None:
    """Return MiniLM-L6 on SST-2, trained as bench/bases says into bench/cache/bases/minilm."""
    if not weights("minilm").exists():
        return None
    from examples.text.sst2 import build, splits

    model = build()
    model.load_state_dict(load_file(weights("minilm")))
    return Row("MiniLM SST-2", model.eval(), splits(), "2%", "20m", Shares(leave_out_copies=True))


def chargpt() -> Row | None:
    """Return the character GPT, trained as bench/bases says into bench/cache/bases/chargpt."""
    if not weights("chargpt").exists():
        return None
    from bench.bases.chargpt import build, splits

    model = build()
    model.load_state_dict(load_file(weights("chargpt")))
    return Row("char-GPT Shakespeare", model.eval(), splits(), "2%", "10m", metric="perplexity")


ROWS: dict[str, Callable[[], Row | None]] = {
    "cnn": lambda: digits("cnn"),
    "mlp": lambda: digits("mlp"),
    "cifar10": cifar10,
    "minilm": minilm,
    "chargpt": chargpt,
}


def one_thread() -> None:
    """Let torch use one thread, as the files do."""
    torch.set_num_threads(1)
