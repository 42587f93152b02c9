"""The automatic choice against the best of a grid of 6 optimizers by 5 learning rates.

    python -m bench.optimizers.auto_vs_grid [--seeds 0 1 2] [--tasks "digits MLP" ...]

All runs have one budget of steps. What the choice costs is taken off the run that follows it. The grid's best is
picked by its own test result, which flatters the grid. Finished grids are not run again; the choice is.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from tersor.loading.inputs import call
from tersor.optimizers.adamw import AdamW
from tersor.optimizers.auto import choose
from tersor.optimizers.registry import make_recipe
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.loop import train
from tersor.recovery.schedules import Cosine

RESULTS = Path(__file__).parents[1] / "results"
GRID = {
    "sgd": (0.01, 0.03, 0.1, 0.3, 1.0),
    "adamw": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "nadamw": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "rmsprop": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "lion": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "muon": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
}


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def cnn() -> nn.Module:
    def layer(a, b, stride):
        return [nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    return nn.Sequential(*layer(1, 8, 1), *layer(8, 16, 2), nn.Flatten(), nn.Linear(256, 10))


def transformer() -> nn.Module:
    class Rows(nn.Module):
        """Each image row is a token."""

        def __init__(self):
            super().__init__()
            self.embed, self.place = nn.Linear(8, 32), nn.Parameter(0.02 * torch.randn(8, 32))
            layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True)
            self.layers, self.head = (
                nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
                nn.Linear(32, 10),
            )

        def forward(self, x):
            return self.head(self.layers(self.embed(x.flatten(1, 2)) + self.place).mean(1))

    return Rows()


def small_cnn() -> nn.Module:
    def layer(a, b):
        return [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    return nn.Sequential(*layer(3, 12), *layer(12, 24), *layer(24, 48), nn.Flatten(), nn.Linear(768, 10))


def gpt() -> nn.Module:
    from bench.bases.chargpt import CharGPT

    return CharGPT(layers=2, width=48, heads=3, block=32)


def digits(seed: int) -> tuple[InMemory, InMemory, InMemory]:
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = torch.tensor(x / 16, dtype=torch.float32).view(-1, 1, 8, 8)[order], torch.tensor(y)[order]
    parts = slice(0, 900), slice(900, 1150), slice(1150, None)
    return tuple(InMemory(x[part], y[part]) for part in parts)


def cifar(seed: int) -> tuple[InMemory, InMemory, InMemory]:
    from examples.cifar10.data import read

    parts = ("train.parquet", 4000 * seed, 4000), ("train.parquet", 45_000, 500), ("test.parquet", 0, 2000)
    read_ = [read(name, start, start + count) for name, start, count in parts]
    return tuple(InMemory(torch.from_numpy(x), torch.from_numpy(y)) for x, y in read_)


def text(seed: int) -> tuple[InMemory, InMemory, InMemory]:
    from bench.bases.chargpt import windows

    train, rest = windows(32)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    halves = rest[::2][:300], rest[1::2][:600]
    return tuple(InMemory(part[:, :-1], part[:, 1:]) for part in (train[order], *halves))


#: Network, data, steps and samples per step.
TASKS = {
    "digits MLP": (mlp, digits, 1600, 32),
    "digits CNN": (cnn, digits, 1600, 32),
    "digits transformer": (transformer, digits, 1600, 32),
    "CIFAR-10 subset, small CNN": (small_cnn, cifar, 1600, 32),
    "tiny Shakespeare, small GPT": (gpt, text, 1600, 8),
}


def rows(output, target):
    """Return outputs over classes and targets as rows, for tokens as for images."""
    return output.flatten(0, -2), target.flatten()


def loss(output, target):
    return F.cross_entropy(*rows(output, target))


def objective(model, batch):
    return loss(call(model, batch.inputs), batch.target)


@torch.no_grad()
def quality(model, test) -> tuple[float, float]:
    """Return accuracy in per cent and the mean loss in nats."""
    batch = next(test.batches(len(test)))
    output, target = rows(call(model, batch.inputs), batch.target)
    right = (output.argmax(1) == target).float().mean().item()
    return 100 * right, F.cross_entropy(output, target).item()


def run(model, split, recipe, steps, size, seed):
    batches = Epochs(split, size, steps / (len(split) / size), seed)
    return train(model, batches, loss=loss, optimizer=recipe, schedule=Cosine(warmup=0.1)).model


def compare(task: str, seed: int, outcome: dict) -> Iterator[None]:
    """Fill `outcome`; each step of the iteration is a moment to store it."""
    make, data, steps, size = TASKS[task]
    split, search, test = data(seed)
    torch.manual_seed(seed)
    model = make()
    grid = outcome.setdefault("grid", {})
    started = lambda recipe, left: quality(run(model, split, recipe, left, size, seed), test)
    probe = list(search.batches(125))
    choice = choose(model, Epochs(split, size, 1000, seed + 1), objective, steps=steps, probe=probe)
    outcome["auto"] = started(choice.recipe, round(steps * (1 - choice.overhead)))
    outcome |= {"recipe": repr(choice.recipe), "reason": choice.reason, "overhead": choice.overhead}
    outcome["noise_scale"] = choice.noise_scale
    print(task, seed, outcome["auto"], choice.recipe, flush=True)
    outcome["default"] = started(AdamW(lr=1e-3), steps)
    for name, rates in GRID.items():
        for lr in rates:
            if f"{name} {lr:g}" not in grid:
                grid[f"{name} {lr:g}"] = started(make_recipe(name, lr=lr), steps)
                yield
    yield


def shown(runs: list[dict], pick) -> str:
    accuracy, loss = (statistics.mean(values) for values in zip(*(pick(r) for r in runs), strict=True))
    return f"{accuracy:.2f} / {loss:.3f}"


def finished(entry: dict) -> list[dict]:
    """Return the runs whose grid is whole."""
    return [r for r in entry["runs"].values() if len(r["grid"]) == sum(map(len, GRID.values()))]


def summary(results: dict) -> str:
    lines = ["# Automatic choice of the optimizer against a 6 x 5 grid", ""]
    lines += [
        "Test accuracy (%) and loss (nats), mean over seeds; equal budgets of steps, the cost of the choice",
        "",
    ]
    lines[-2] += (
        " included. The rules were made looking at seeds 0 and 1 of the MLP and seed 0 of the other digits."
    )
    lines += [
        "| task | steps | seeds | auto | best of the grid | AdamW 1e-3 | median of the grid | overhead |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for task, entry in results.items():
        runs = finished(entry)
        if not runs:
            continue
        mean = lambda pick, runs=runs: statistics.mean(pick(r) for r in runs)
        # One entry of the grid for all seeds, as a user would fix it.
        best = max(
            runs[0]["grid"], key=lambda name, runs=runs: statistics.mean(r["grid"][name][0] for r in runs)
        )
        middle = mean(lambda r: statistics.median(q[0] for q in r["grid"].values()))
        show = partial(shown, runs)
        grid = show(lambda r, b=best: r["grid"][b])
        lines.append(
            f"| {task} | {entry['steps']} | {len(runs)} | {show(lambda r: r['auto'])} | {grid} ({best})"
            f" | {show(lambda r: r['default'])} | {middle:.2f} | {max(r['overhead'] for r in runs):.1%} |"
        )
    lines += ["", "Chosen:", ""]
    lines += [
        f"- {task}: {r['recipe']}. {r['reason']}" for task, entry in results.items() for r in finished(entry)
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / "optimizer_auto.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for seed in arguments.seeds:
        for task in arguments.tasks:
            entry = results.setdefault(task, {"steps": TASKS[task][2], "runs": {}})
            for _ in compare(task, seed, entry["runs"].setdefault(str(seed), {})):
                file.write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "optimizer_auto.md").write_text(summary(results))
    print(summary(results), flush=True)


if __name__ == "__main__":
    main()
