"""`python -m bench.distillation.digits`: which loss brings a cut network back, on scikit-learn's digits.

A convolutional network of width 16 loses three quarters of its multiply-adds and is recovered from itself as it was,
for one and three passes, at the usual optimizer and rate; paired over seeds (splits, weights and orders differ).
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from torch.nn import functional as F

from bench.distillation.__main__ import interval
from tersor.cli.digits import ConvNet, split_digits
from tersor.distillation.kl import KL
from tersor.distillation.zscore import ZScoreKL
from tersor.optimizers.sgd import SGD
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.loop import train
from tersor.recovery.recover import Ladder, recover
from tersor.search.verbs import prune

RESULTS = Path(__file__).parents[1] / "results"
LOSSES = {
    "KL, T=1": KL(1.0),
    "KL, T=2": KL(2.0),
    "KL, T=4": KL(4.0),
    "z-score KL, T=2": ZScoreKL(2.0),
}
PASSES = (1, 3)


def run(seed: int) -> dict[str, float]:
    """Return the test accuracy in per cent of teacher, cut student, and each recovery."""
    data = split_digits(seed)
    torch.manual_seed(seed)
    split = InMemory(*map(torch.from_numpy, data["train"]))
    images, labels = map(torch.from_numpy, data["certification"])

    def accuracy(model) -> float:
        return 100 * (model(images).argmax(1) == labels).float().mean().item()

    teacher = train(ConvNet(16), Epochs(split, 64, 15), loss=F.cross_entropy, optimizer=SGD(lr=0.1)).model
    student = prune(teacher, images[:2], ratio=0.75).model
    found = {"teacher": accuracy(teacher), "cut": accuracy(student)}
    ladder = Ladder(rungs=("norms", "distillation"), batch=64)
    for passes in PASSES:
        for name, loss in LOSSES.items():
            model = recover(student, teacher, split, epochs=passes, loss=loss, ladder=ladder).model
            found[f"{name}, {passes}"] = accuracy(model)
    return found


def table(runs: list[dict[str, float]]) -> str:
    """Return the outcome as Markdown."""
    mean = lambda name: statistics.mean(r[name] for r in runs)
    lines = ["# Recovery of a cut network on the digits, by loss", ""]
    lines += [
        f"Mean test accuracy over {len(runs)} seeds; teacher {mean('teacher'):.1f}%, cut {mean('cut'):.1f}%. The "
        "interval is of the paired difference from the standardised loss, 95%, Student's t over seeds.",
        "",
        "| passes | loss | accuracy | minus z-score KL |",
        "|---|---|---|---|",
    ]
    for passes in PASSES:
        for name in LOSSES:
            gaps = [r[f"{name}, {passes}"] - r[f"z-score KL, T=2, {passes}"] for r in runs]
            low, high = interval(gaps) if any(gaps) else (0.0, 0.0)
            shown = f"{statistics.mean(gaps):+.1f} [{low:+.1f}, {high:+.1f}]" if any(gaps) else "-"
            lines.append(f"| {passes} | {name} | {mean(f'{name}, {passes}'):.1f}% | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the seeds and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=6)
    torch.set_num_threads(1)
    runs = [run(seed) for seed in range(parser.parse_args().seeds)]
    (RESULTS / "distillation_digits.json").write_text(json.dumps(runs, indent=1) + "\n")
    (RESULTS / "distillation_digits.md").write_text(table(runs))
    print(table(runs))


if __name__ == "__main__":
    main()
