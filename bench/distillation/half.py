"""`python -m bench.distillation.half`: a teacher's worth to a half-width student that sees 200 labelled digits.

The teacher, a convolutional network of width 16, saw 900. Students of width 8 start from the same fresh weights, see
the same batches for 40 passes, and differ in their loss alone; paired over seeds.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from torch.nn import functional as F

from bench.distillation.__main__ import interval
from tersor.cli.digits import ConvNet, split_digits
from tersor.distillation.combined import WithLabels
from tersor.distillation.kl import KL
from tersor.distillation.zscore import ZScoreKL
from tersor.optimizers.sgd import SGD
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.loop import fit, train
from tersor.recovery.teacher import imitation, live

RESULTS = Path(__file__).parents[1] / "results"
SAMPLES, EPOCHS, OPTIMIZER = 200, 40, SGD(lr=0.1)
LOSSES = {
    "KL, T=4, labels 0.1": WithLabels(F.cross_entropy, KL(4.0), 0.1),
    "KL, T=2": KL(2.0),
    "z-score KL, T=2, labels 0.1": WithLabels(F.cross_entropy, ZScoreKL(2.0), 0.1),
    "z-score KL, T=2": ZScoreKL(2.0),
}
PAIRS = [(name, "no teacher") for name in LOSSES] + [
    ("z-score KL, T=2, labels 0.1", "KL, T=4, labels 0.1"),
    ("z-score KL, T=2", "KL, T=2"),
]


def run(seed: int) -> dict[str, float]:
    """Return the test accuracy in per cent of the teacher and of each student."""
    data = split_digits(seed)
    torch.manual_seed(seed)
    images, labels = map(torch.from_numpy, data["train"])
    whole, few = InMemory(images, labels), InMemory(images[:SAMPLES], labels[:SAMPLES])
    tested, answers = map(torch.from_numpy, data["certification"])

    def accuracy(model) -> float:
        return 100 * (model(tested).argmax(1) == answers).float().mean().item()

    teacher = train(ConvNet(16), Epochs(whole, 64, 15), loss=F.cross_entropy, optimizer=OPTIMIZER).model
    student, batches = ConvNet(8), Epochs(few, 32, EPOCHS, seed)
    alone = train(student, batches, loss=F.cross_entropy, optimizer=OPTIMIZER).model
    found = {"teacher": accuracy(teacher), "no teacher": accuracy(alone)}
    for name, loss in LOSSES.items():
        objective = imitation(live(teacher), loss)
        found[name] = accuracy(fit(student, batches, objective=objective, optimizer=OPTIMIZER).model)
    return found


def table(runs: list[dict[str, float]]) -> str:
    """Return the outcome as Markdown."""
    mean = lambda name: statistics.mean(r[name] for r in runs)
    lines = ["# A half-width student of 200 digits: what the teacher is worth", ""]
    lines += [f"Mean test accuracy over {len(runs)} seeds; teacher {mean('teacher'):.2f}%.", ""]
    lines += ["| loss | accuracy |", "|---|---|"]
    lines += [f"| {name} | {mean(name):.2f}% |" for name in ("no teacher", *LOSSES)]
    lines += ["", "| difference | points, 95% interval (paired, Student's t over seeds) |", "|---|---|"]
    for a, b in PAIRS:
        gaps = [r[a] - r[b] for r in runs]
        low, high = interval(gaps)
        lines.append(f"| {a} - {b} | {statistics.mean(gaps):+.2f} [{low:+.2f}, {high:+.2f}] |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the seeds and write the table as they come."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    torch.set_num_threads(1)
    runs: list[dict[str, float]] = []
    for seed in range(parser.parse_args().seeds):
        runs.append(run(seed))
        if seed:
            (RESULTS / "distillation_half.json").write_text(json.dumps(runs, indent=1) + "\n")
            (RESULTS / "distillation_half.md").write_text(table(runs))
    print(table(runs))


if __name__ == "__main__":
    main()
