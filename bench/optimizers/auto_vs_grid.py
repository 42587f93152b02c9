"""The automatic choice against the best of a grid of 6 optimizers by 5 learning rates.

    python bench/optimizers/auto_vs_grid.py [--seeds 3] [--out bench/results]

All runs have one budget of steps. What the choice costs is taken off the run that follows it. The grid's best is
picked by its own test result, which flatters the grid.
"""

import argparse
import json
import statistics
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


TASKS = {"digits MLP": (mlp, 1600), "digits CNN": (cnn, 1600), "digits transformer": (transformer, 1600)}


def data(seed: int) -> tuple[InMemory, InMemory, InMemory]:
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = torch.tensor(x / 16, dtype=torch.float32).view(-1, 1, 8, 8)[order], torch.tensor(y)[order]
    parts = slice(0, 900), slice(900, 1150), slice(1150, None)
    return tuple(InMemory(x[part], y[part]) for part in parts)


def objective(model, batch):
    return F.cross_entropy(call(model, batch.inputs), batch.target)


@torch.no_grad()
def quality(model, test) -> tuple[float, float]:
    batch = next(test.batches(len(test)))
    output = call(model, batch.inputs)
    return 100 * (output.argmax(1) == batch.target).float().mean().item(), F.cross_entropy(
        output, batch.target
    ).item()


def run(model, split, recipe, steps, seed, warmup=0.1):
    batches = Epochs(split, 32, steps / (len(split) / 32), seed)
    return train(model, batches, loss=F.cross_entropy, optimizer=recipe, schedule=Cosine(warmup=warmup)).model


def compare(make, steps: int, seed: int) -> dict:
    split, search, test = data(seed)
    torch.manual_seed(seed)
    model = make()
    grid = {}
    for name, rates in GRID.items():
        for lr in rates:
            grid[f"{name} {lr:g}"] = quality(run(model, split, make_recipe(name, lr=lr), steps, seed), test)
    choice = choose(
        model, Epochs(split, 32, 1000, seed + 1), objective, steps=steps, probe=list(search.batches(125))
    )
    left = round(steps * (1 - choice.overhead))
    return {
        "auto": quality(run(model, split, choice.recipe, left, seed, choice.warmup), test),
        "recipe": repr(choice.recipe),
        "reason": choice.reason,
        "overhead": choice.overhead,
        "default": quality(run(model, split, AdamW(lr=1e-3), steps, seed), test),
        "grid": grid,
    }


def shown(runs: list[dict], pick) -> str:
    accuracy, loss = (statistics.mean(values) for values in zip(*(pick(r) for r in runs), strict=True))
    return f"{accuracy:.2f} / {loss:.3f}"


def summary(results: dict) -> str:
    lines = ["# Automatic choice of the optimizer against a 6 x 5 grid", ""]
    lines += [
        "Test accuracy (%) and loss (nats), mean over seeds; equal budgets of steps, the cost of the choice",
        "",
    ]
    lines[-2] += " included."
    lines += [
        "| task | steps | seeds | auto | best of the grid | AdamW 1e-3 | median of the grid | overhead |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for task, entry in results.items():
        runs = entry["runs"]
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
        f"- {task}: {r['recipe']}. {r['reason']}" for task, entry in results.items() for r in entry["runs"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for seed in range(arguments.seeds):
        for task in arguments.tasks:
            make, steps = TASKS[task]
            results.setdefault(task, {"steps": steps, "runs": []})["runs"].append(compare(make, steps, seed))
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / "optimizer_auto.json").write_text(json.dumps(results, indent=1) + "\n")
            (arguments.out / "optimizer_auto.md").write_text(summary(results))
            print(summary(results), flush=True)


if __name__ == "__main__":
    main()
