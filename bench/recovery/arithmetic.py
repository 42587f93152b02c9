"""`python -m bench.recovery.arithmetic`: what bfloat16 products and channels last gain and cost in training.

Time of a training step, all ways in turns, on 32 samples. Then ResNet-20 with half the inner channels is recovered from
CIFAR-10 in the same steps in float32 and in the quickest way, over seeds. Writes bench/results/arithmetic.md.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from bench.distillation.__main__ import interval
from bench.recovery.resnet import ResNet20, accuracy, half, samples, teacher
from tersor.cli.digits import ConvNet, Perceptron
from tersor.measurement.machine import this_machine
from tersor.recovery.arithmetic import PLAIN, Arithmetic, quickest
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
WAYS = (PLAIN, Arithmetic(channels_last=True), Arithmetic(bfloat16=True), Arithmetic(True, True))
ROUNDS, BATCH = 7, 32


def minilm() -> nn.Module:
    from examples.text.sst2 import build

    return build()


NETWORKS = {
    "digits perceptron": (lambda: Perceptron(256), torch.randn(BATCH, 1, 8, 8)),
    "digits CNN": (ConvNet, torch.randn(BATCH, 1, 8, 8)),
    "ResNet-20": (ResNet20, torch.randn(BATCH, 3, 32, 32)),
    "MiniLM, 32 tokens": (minilm, torch.randint(0, 1000, (BATCH, 32))),
}


def step_ms(name: str) -> dict[str, float]:
    """Return the fastest of interleaved steps in each way, and which way would be taken."""
    build, inputs = NETWORKS[name]
    model = build().train()
    inputs = (inputs, torch.ones_like(inputs)) if inputs.dtype == torch.int64 else (inputs,)
    times: dict[str, list[float]] = {str(way): [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            begun_s = time.process_time()
            way.output(model, inputs).square().mean().backward()
            times[str(way)].append(1e3 * (time.process_time() - begun_s))
    return {way: min(found) for way, found in times.items()} | {"taken": str(quickest(model, inputs))}


def recovered(data: Path, seeds: int, train: int, test: int, passes: float) -> list[dict]:
    """Return accuracy and seconds in float32 and in the quickest way, for each seed."""
    base, held = teacher(data), samples(data, "test.parquet", 0, test)
    shown = samples(data, "train.parquet", 0, train)
    way, rows = quickest(base, next(shown.batches(BATCH)).inputs), []
    for seed in range(seeds):
        row = {"way": str(way), "cut": accuracy(half(base)[0], held)}
        for name, arithmetic in (("float32", PLAIN), ("quickest", way)):
            training = Settings(seed=seed, arithmetic=arithmetic)
            ladder = Ladder(rungs=("norms", "distillation"), task_kind="classification", training=training)
            begun_s = time.process_time()
            made = recover(half(base)[0], base, shown, epochs=passes, ladder=ladder).model
            row[name] = {"cpu_s": time.process_time() - begun_s, "accuracy": accuracy(made, held)}
        rows.append(row)
    return rows


def page(found: dict) -> str:
    """Return both tables."""
    lines = [
        "# Training with bfloat16 products\n",
        f"`python -m bench.recovery.arithmetic`. {found['machine']}, one thread. Forward and backward pass of {BATCH} "
        f"samples, fastest of {ROUNDS} in turns, ms of processor time:\n",
        f"| network | {' | '.join(map(str, WAYS))} | taken |",
        "|---" * (len(WAYS) + 2) + "|",
    ]
    for name, times in found["steps"].items():
        base = times[str(PLAIN)]
        cells = [f"{times[str(way)]:.1f} ({base / times[str(way)]:.2f}x)" for way in WAYS]
        lines.append(f"| {name} | {' | '.join(cells)} | {times['taken']} |")
    rows = found["recovered"]
    gaps = [100 * (row["quickest"]["accuracy"] - row["float32"]["accuracy"]) for row in rows]
    low, high = interval(gaps) if len(gaps) > 1 else (float("-inf"), float("inf"))
    ratio = statistics.median(row["float32"]["cpu_s"] / row["quickest"]["cpu_s"] for row in rows)
    lines += [
        f"\nResNet-20 with half the inner channels, {found['passes']:g} passes over {found['train']} training images "
        f"of CIFAR-10 with the original as teacher, {found['test']} test images, {len(rows)} seeds:\n",
        "| seed | as cut | float32 | quickest |",
        "|---|---|---|---|",
    ]
    for seed, row in enumerate(rows):
        cells = [
            f"{row[name]['accuracy']:.2%} in {row[name]['cpu_s']:.0f} s" for name in ("float32", "quickest")
        ]
        lines.append(f"| {seed} | {row['cut']:.2%} | {' | '.join(cells)} |")
    lines.append(
        f"\nThe quickest ({rows[0]['way']}) takes {ratio:.2f} times less; its accuracy is {statistics.mean(gaps):+.2f} "
        f"points apart ({low:+.2f} to {high:+.2f}, 95% over seeds)."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Time the networks, recover, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    for name, default in (("seeds", 4), ("train", 5000), ("test", 5000), ("passes", 2.0)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    words = vars(parser.parse_args())
    torch.set_num_threads(1)
    found = words | {
        "data": None,
        "machine": this_machine().processor,
        "steps": {name: step_ms(name) for name in NETWORKS},
        "recovered": recovered(**words),
    }
    (RESULTS / "arithmetic.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "arithmetic.md").write_text(page(found))


if __name__ == "__main__":
    main()
