"""The recovery ladder against plain fine-tuning: ResNet-20 on CIFAR-10 with half of every block's channels cut.

    python -m bench.recovery [--data ../shared/data] [--train 2000] [--test 2000] [--out bench/results]

Both see the same training images with the same augmentation; fine-tuning has the labels and no teacher.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from bench.recovery.cache import overhead
from bench.recovery.resnet import accuracy, half, samples, teacher
from tersor.optimizers.sgd import SGD
from tersor.recovery.epochs import Epochs
from tersor.recovery.loop import train
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.views import Views, shift_and_flip

ROOT = Path(__file__).resolve().parents[2]


def fine_tuned(student, split, epochs, lr):
    views = Views(split, shift_and_flip, views=8)
    return train(
        student, Epochs(views, 128, epochs), loss=F.cross_entropy, optimizer=SGD(lr=lr, weight_decay=1e-4)
    ).model


def rows_of(recovered, label):
    return [
        {"run": label, "rung": r.name, "before": r.before, "after": r.after, "kept": r.kept, "accuracy": r.score,
         "wall_s": r.wall_s, "note": r.note}
        for r in recovered.rungs
    ]  # fmt: skip


def table(results: dict) -> str:
    lines = ["# Recovery of ResNet-20 with half the inner channels", ""]
    lines += [
        f"{results['train']} training images, {results['test']} test images, batch 128, one thread.",
        "",
    ]
    lines += [f"Original {results['original']:.1%}; cut {results['cut']:.1%}.", ""]
    lines += ["| run | rung | distance to teacher before | after | kept | test accuracy | time, s |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for r in results["rungs"]:
        distance = f"{r['before']:.3f} | {r['after']:.3f} | {r['kept']}"
        lines.append(f"| {r['run']} | {r['rung']} | {distance} | {r['accuracy']:.1%} | {r['wall_s']:.0f} |")
    lines += ["", "| plain fine-tuning with labels | test accuracy | time, s |", "|---|---|---|"]
    for r in results["plain"]:
        lines.append(f"| {r['epochs']} epochs, peak lr {r['lr']} | {r['accuracy']:.1%} | {r['wall_s']:.0f} |")
    cost = results["overhead"]
    lines += [
        "",
        f"A warm cache of the teacher adds {cost['cached']:.1%} to a step; the teacher itself {cost['live']:.1%}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    split = samples(arguments.data, "train.parquet", 0, arguments.train)
    test = samples(arguments.data, "test.parquet", 0, arguments.test)
    original = teacher(arguments.data)
    student, kept = half(original)
    score = lambda model: accuracy(model, test)
    results = {"train": len(split), "test": len(test), "original": score(original), "cut": score(student)}
    results |= {"rungs": [], "plain": [], "overhead": overhead(student, original, split)}

    def save():
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "recovery_ladder.json").write_text(json.dumps(results, indent=1) + "\n")
        (arguments.out / "recovery_ladder.md").write_text(table(results))
        print(table(results), flush=True)

    for label, rungs, epochs in (
        ("without training", ("norms", "layers", "blocks"), 0),
        ("distillation alone", ("norms", "distillation"), 3),
        ("layers + distillation", ("norms", "layers", "distillation"), 3),
    ):
        ladder = Ladder(rungs=rungs, kept=kept, augment=shift_and_flip, score=score, calibration=256)
        results["rungs"] += rows_of(recover(student, original, split, epochs=epochs, ladder=ladder), label)
        save()
    for epochs, lr in ((3, 0.02), (10, 0.02)):
        began = time.perf_counter()
        model = fine_tuned(student, split, epochs, lr)
        wall_s = time.perf_counter() - began
        results["plain"].append({"epochs": epochs, "lr": lr, "accuracy": score(model), "wall_s": wall_s})
        save()


if __name__ == "__main__":
    main()
