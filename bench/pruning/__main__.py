"""Run with `python -m bench.pruning`; `--help` lists the budget. Writes bench/results/pruning.{json,md}.

Every contender gets the same calibration samples, the same cap on multiply-adds, the same fine-tuning (steps, order
of samples, augmentation, learning rate) and the same test samples. Intervals are 95 per cent: Wilson for an
accuracy, and for the difference to the best Torch-Pruning result at the same cap the normal one of paired outcomes.
"""

import argparse
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.pruning.contenders import Contender, contenders
from examples.cifar10.data import FOLDER, read
from examples.cifar10.model import build
from tersor.analysis.facts import facts
from tersor.distillation.rules import loss_for
from tersor.loading.task import Batch

RESULTS = Path(__file__).parents[1] / "results"
Z = 1.96


@dataclass
class Budget:
    """What every contender may spend.

    Attributes:
        calibration: labelled samples for scores, gradients and compensation.
        train: samples of an epoch of fine-tuning.
        epochs: passes over them.
        test: test samples.
        seeds: repetitions of the fine-tuning with another order and augmentation.
    """

    calibration: int = 256
    train: int = 5000
    epochs: int = 3
    test: int = 10000
    seeds: int = 1
    batch: int = 128
    lr: float = 0.02


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to 4 pixels and flip, one draw for each sample."""
    padded = nn.functional.pad(images, (4, 4, 4, 4))
    rows, columns = (torch.randint(0, 9, (len(images),), generator=generator) for _ in range(2))
    flips = torch.rand(len(images), generator=generator) < 0.5
    crops = [
        image[:, r : r + 32, c : c + 32].flip(-1) if flip else image[:, r : r + 32, c : c + 32]
        for image, r, c, flip in zip(padded, rows.tolist(), columns.tolist(), flips.tolist(), strict=True)
    ]
    return torch.stack(crops)


def fine_tune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    seed: int,
    teacher: nn.Module | None = None,
) -> nn.Module:
    """Train all weights: SGD with Nesterov momentum, weight decay 5e-4, cosine to zero; towards a teacher if any."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), budget.lr, 0.9, weight_decay=5e-4, nesterov=True)
    steps = budget.epochs * math.ceil(len(images) / budget.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(budget.epochs):
        for rows in torch.randperm(len(images), generator=generator).split(budget.batch):
            optimizer.zero_grad()
            seen = augmented(images[rows], generator)
            _loss(model, seen, labels[rows], teacher).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _loss(model: nn.Module, images: Tensor, labels: Tensor, teacher: nn.Module | None) -> Tensor:
    if teacher is None:
        return nn.functional.cross_entropy(model(images), labels)
    with torch.no_grad():
        answer = teacher(images)
    return loss_for(answer, labels, "classification")(model(images), answer, labels)


@torch.no_grad()
def correct(model: nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    """Return for each sample whether the model is right."""
    model.eval()
    return torch.cat(
        [model(x).argmax(1) == y for x, y in zip(images.split(500), labels.split(500), strict=True)]
    ).numpy()


def wilson(hits: np.ndarray) -> tuple[float, float]:
    """Return the 95 per cent interval of an accuracy."""
    n, p = len(hits), hits.mean()
    centre, half = (p + Z**2 / (2 * n)), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return (centre - half) / (1 + Z**2 / n), (centre + half) / (1 + Z**2 / n)


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float, float]:
    """Return the mean difference of paired outcomes and its 95 per cent interval."""
    gap = ours.astype(float) - theirs.astype(float)
    half = Z * gap.std(ddof=1) / math.sqrt(len(gap))
    return float(gap.mean()), float(gap.mean() - half), float(gap.mean() + half)


def tensors_of(name: str, start: int, stop: int | None) -> tuple[Tensor, Tensor]:
    images, labels = read(name, start, stop)
    return torch.from_numpy(images), torch.from_numpy(labels)


def run_one(
    contender: Contender, model: nn.Module, most: float, data: dict, budget: Budget
) -> tuple[dict, np.ndarray]:
    """Prune, fine-tune for each seed and test; return the row and the outcomes over all seeds."""
    images, labels = data["calibration"]
    batches = [
        Batch((x,), y, tuple(range(len(x)))) for x, y in zip(images.split(64), labels.split(64), strict=True)
    ]
    began = time.perf_counter()
    small = contender.prune(model, most, batches)
    prune_s = time.perf_counter() - began
    counted = facts(small, (images[:2],))
    before = correct(small, *data["test"])
    state = {name: value.clone() for name, value in small.state_dict().items()}
    teacher, outcomes = model if contender.distil else None, []
    for seed in range(budget.seeds):
        small.load_state_dict(state)
        outcomes.append(correct(fine_tune(small, *data["train"], budget, seed, teacher), *data["test"]))
    after = np.concatenate(outcomes)
    row = {
        "tool": contender.tool, "name": contender.name, "macs": counted.macs, "parameters": counted.parameters,
        "prune_s": round(prune_s, 1), "before": before.mean().item(), "after": after.mean().item(),
        "interval": wilson(after), "by_seed": [float(o.mean()) for o in outcomes],
    }  # fmt: skip
    return row, after


COLUMNS = (
    "fewer MACs", "tool", "criterion, selection", "MACs kept", "parameters kept", "before", "after fine-tuning",
    "vs best of Torch-Pruning",
)  # fmt: skip
HEAD = """# ResNet-20 on CIFAR-10: structured pruning, side by side

Unpruned: {accuracy:.2%} on the same {test} test images, {millions:.1f} M multiply-adds. Each contender gets
{calibration} calibration images, then {epochs} epochs of {train} training images (batch {batch}, SGD {lr:g} with a
cosine, {seeds} seed(s)), on labels, or where it says so on the outputs of the unpruned network. No batch norm is
re-estimated before. "Before" is the accuracy right after the cut. Intervals are 95 per cent; the last column
is in points, paired, against the best Torch-Pruning result at that cap.
"""


def table(rows: list[dict], head: dict) -> str:
    """Return the results as Markdown."""
    lines = [HEAD.format(accuracy=head["accuracy"], millions=head["macs"] / 1e6, **head["budget"])]
    lines += [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        gap, (low, high) = row.get("gap"), row["interval"]
        cells = (
            f"{row['ratio']:.0%}", row["tool"], row["name"], f"{row['macs'] / head['macs']:.1%}",
            f"{row['parameters'] / head['parameters']:.1%}", f"{row['before']:.2%}",
            f"{row['after']:.2%} [{low:.2%}, {high:.2%}]",
            f"{gap[0] * 100:+.2f} [{gap[1] * 100:+.2f}, {gap[2] * 100:+.2f}]" if gap else "",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [*lines, "", f"{head['machine']}, torch {head['torch']}, {head['wall_s'] / 60:.0f} minutes.", ""]
    )


def parse() -> tuple[Budget, argparse.Namespace]:
    """Return the budget and the other options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.pruning", description=__doc__)
    for name, default in asdict(Budget()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument(
        "--ratios", type=float, nargs="+", default=[0.3, 0.5, 0.7], help="fractions of MACs removed"
    )
    parser.add_argument(
        "--only", nargs="+", default=[""], help="run contenders whose tool or name holds one of these"
    )
    parser.add_argument("--weights", type=Path, default=FOLDER.parent / "resnet20_cifar10.safetensors")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    return Budget(**{name: getattr(options, name) for name in asdict(Budget())}), options


def compared(ratio: float, found: list[tuple[dict, np.ndarray]]) -> list[dict]:
    """Return the rows of one ratio, ours with their difference to the best of theirs."""
    peers = [(row["after"], outcome) for row, outcome in found if row["tool"] != "tersor"]
    best = max(peers, key=lambda pair: pair[0])[1] if peers else None
    mine = lambda row: best is not None and row["tool"] == "tersor"
    return [
        {"ratio": ratio, **row, **({"gap": difference(outcome, best)} if mine(row) else {})}
        for row, outcome in found
    ]


def main() -> None:
    """Run every contender at every ratio; write after each ratio."""
    budget, options = parse()
    began = time.perf_counter()
    model = build().eval()
    model.load_state_dict(load_file(options.weights))
    data = {
        "train": tensors_of("train.parquet", 0, budget.train),
        "calibration": tensors_of("train.parquet", 45_000 - budget.calibration, 45_000),
        "test": tensors_of("test.parquet", 0, budget.test),
    }
    counted = facts(model, (data["test"][0][:2],))
    head = {
        "macs": counted.macs,
        "parameters": counted.parameters,
        "accuracy": correct(model, *data["test"]).mean().item(),
        "budget": asdict(budget),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
        "torch": torch.__version__,
    }
    rows: list[dict] = []
    for ratio in options.ratios:
        found = []
        for contender in contenders():
            if any(part in f"{contender.tool} {contender.name}" for part in options.only):
                found.append(run_one(contender, model, (1 - ratio) * counted.macs, data, budget))
                print(
                    ratio,
                    {k: found[-1][0][k] for k in ("tool", "name", "before", "after", "prune_s")},
                    flush=True,
                )
        rows += compared(ratio, found)
        head["wall_s"] = time.perf_counter() - began
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "pruning.json").write_text(json.dumps({**head, "rows": rows}, indent=1))
        (options.out / "pruning.md").write_text(table(rows, head))


if __name__ == "__main__":
    main()
