"""The best peak learning rate by the length of the run: what the automatic choice makes of its short trials.

    python -m bench.optimizers.rates_by_length [--tasks "digits MLP" ...]

Complete annealed runs of 40, 160 and 1600 steps on the tasks of `auto_vs_grid`, with a seed that it does not use. The
slope between the best rates of the first and the last length is the exponent by which a rate falls as runs grow.
Finished cells are not run again.
"""

import argparse
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.optimizers.auto_vs_grid import TASKS, quality, run
from tersor.optimizers.registry import make_recipe

FILE = Path(__file__).parents[1] / "results" / "optimizer_rates.json"
SEED = 7
LENGTHS = (40, 160, 1600)
RATES = {
    "muon": [0.002 * 2**i for i in range(8)],
    "nadamw": [0.0005 * 2**i for i in range(9)],
    "sgd": [0.0125 * 2**i for i in range(7)],
}
#: Rates within so many points of the best one are as good as it: the middle of them counts.
LEVEL = 0.5


def measured(task: str, found: dict) -> Iterator[None]:
    """Fill `found` with the test accuracy and loss of each run; each step of the iteration stores it."""
    make, data, _, size = TASKS[task]
    split, _, test = data(SEED)
    torch.manual_seed(SEED)
    model = make()
    for steps in LENGTHS:
        for name, rates in RATES.items():
            row = found.setdefault(f"{name} {steps}", {})
            for lr in rates:
                if f"{lr:g}" not in row:
                    row[f"{lr:g}"] = quality(
                        run(model, split, make_recipe(name, lr=lr), steps, size, SEED), test
                    )
                    yield


def best(row: dict[str, tuple[float, float]]) -> float:
    """Return the middle, on a logarithmic scale, of the rates that are as good as the best by accuracy."""
    most = max(accuracy for accuracy, _ in row.values())
    level = [math.log(float(lr)) for lr, (accuracy, _) in row.items() if accuracy >= most - LEVEL]
    return math.exp(statistics.mean(level))


def slope(found: dict, name: str) -> float:
    """Return the exponent by which the best rate falls from the shortest to the longest run."""
    short, long = (best(found[f"{name} {steps}"]) for steps in (LENGTHS[0], LENGTHS[-1]))
    return math.log(short / long) / math.log(LENGTHS[-1] / LENGTHS[0])


def summary(results: dict) -> str:
    """Return the results as Markdown."""
    lines = [
        "# The best peak rate by the length of the run",
        "",
        "`python -m bench.optimizers.rates_by_length`: complete annealed runs; the rates within half a point of the "
        "best test accuracy, their middle. The exponent is that of the fall from 40 to 1600 steps.",
        "",
        f"| task | optimizer | {' | '.join(f'{steps} steps' for steps in LENGTHS)} | exponent |",
        "|---|---|---|---|---|---|",
    ]
    for name in RATES:
        whole = {task: found for task, found in results.items() if f"{name} {LENGTHS[-1]}" in found}
        for task, found in whole.items():
            rates = " | ".join(f"{best(found[f'{name} {steps}']):.3g}" for steps in LENGTHS)
            lines.append(f"| {task} | {name} | {rates} | {slope(found, name):.2f} |")
        if whole:
            middle = statistics.median(slope(found, name) for found in whole.values())
            lines.append(f"| median | {name} | | | | {middle:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, and write after each run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(FILE.read_text()) if FILE.exists() else {}
    for task in arguments.tasks:
        for _ in measured(task, results.setdefault(task, {})):
            FILE.write_text(json.dumps(results, indent=1) + "\n")
    FILE.with_suffix(".md").write_text(summary(results))
    print(summary(results), flush=True)


if __name__ == "__main__":
    main()
