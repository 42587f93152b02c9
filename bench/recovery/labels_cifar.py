"""`python -m bench.recovery.labels_cifar`: labels beside the teacher on CIFAR-10, for a short and a long recovery.

ResNet-20 with half the inner channels learns from the original alone, or from labels with a fifth of the original (what
a search takes for long recoveries). `bench.recovery.labels` asks the same on few samples.
"""

import argparse
import json
from pathlib import Path

import torch
from torch.nn import functional as F

from bench.pruning.__main__ import correct, difference
from bench.recovery.resnet import half, samples, teacher
from tersor.distillation.combined import with_labels
from tersor.distillation.kl import KL
from tersor.recovery.arithmetic import quickest
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
LOSSES = {"teacher": KL(2.0), "labels and teacher": with_labels(KL(2.0), F.cross_entropy)}
#: Training images and passes over them.
LENGTHS = ((20_000, 2.0), (45_000, 4.0))


def main() -> None:
    """Recover in both ways for each length, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    base, held = teacher(options.data), samples(options.data, "test.parquet", 0, 10_000)
    shown = samples(options.data, "train.parquet", 0, LENGTHS[-1][0])
    way = quickest(base, next(shown.batches(32)).inputs)
    training, rows = Settings(seed=options.seed, arithmetic=way), []
    ladder = Ladder(rungs=("norms", "distillation"), task_kind="classification", training=training)
    for count, passes in LENGTHS:
        few = type(shown)(shown.inputs[:count], shown.target[:count])
        outcomes = {
            name: correct(
                recover(half(base)[0], base, few, epochs=passes, loss=loss, ladder=ladder).model,
                held.inputs,
                held.target,
            )
            for name, loss in LOSSES.items()
        }
        gap = [100 * part for part in difference(outcomes["labels and teacher"], outcomes["teacher"])]
        accuracy = {name: float(right.mean()) for name, right in outcomes.items()}
        rows.append({"images": count, "passes": passes, "accuracy": accuracy, "gap": gap})
        (RESULTS / "recovery_labels_cifar.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "recovery_labels_cifar.md").write_text(page(rows))


def page(rows: list[dict]) -> str:
    """Return the table."""
    lines = [
        "# Labels beside the teacher on CIFAR-10",
        "",
        "`python -m bench.recovery.labels_cifar`. ResNet-20 with half the inner channels, batch 128, one seed, 10,000 "
        "test images; the last column in points, paired, with its 95% interval.",
        "",
        f"| training images | passes | {' | '.join(LOSSES)} | labels and teacher ahead by |",
        "|---" * (3 + len(LOSSES)) + "|",
    ]
    for row in rows:
        cells = [f"{row['accuracy'][name]:.2%}" for name in LOSSES]
        gap, low, high = row["gap"]
        words = f"{gap:+.2f} [{low:+.2f}, {high:+.2f}]"
        lines.append(f"| {row['images']:,} | {row['passes']:g} | {' | '.join(cells)} | {words} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
