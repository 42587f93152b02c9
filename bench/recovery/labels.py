"""`python -m bench.recovery.labels`: labels, mixtures and a refitted start, when a cut network is trained for long.

A convolutional network on scikit-learn's digits keeps 12, 12 and 24 of its 48, 48 and 96 channels and is trained for
60 passes; samples that were not trained on count. Paired over seeds (splits, weights and orders differ).
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.distillation.__main__ import interval
from bench.peers.work import WORK
from tersor.distillation.combined import with_labels
from tersor.distillation.kl import KL
from tersor.graph.trace import trace
from tersor.loading.build import build_task
from tersor.planning.plan import Cut, Plan
from tersor.pruning.compensate import compensate
from tersor.pruning.select import keep_highest
from tersor.recovery.recover import Ladder, recover
from tersor.search.harm import SAMPLES, unit_scores
from tersor.surgery.apply import apply, close

RESULTS = Path(__file__).parents[1] / "results"
WIDTHS = {"stem.0": 12, "block.0": 12, "down.0": 24}
#: How student and teacher are compared, and whether on mixtures of two samples.
WAYS = {
    "teacher": (KL(2.0), False),
    "teacher and labels": (with_labels(KL(2.0), F.cross_entropy), False),
    "labels": (lambda student, _, target: F.cross_entropy(student, target), False),
    "teacher, mixtures": (KL(2.0), True),
    "teacher and labels, mixtures": (with_labels(KL(2.0), F.cross_entropy, alpha=0.3), True),
}
PASSES = 60


def run(seed: int) -> dict[str, list[int]]:
    """Return for each way how many samples the original alone and the recovered network alone get right."""
    with tempfile.TemporaryDirectory() as folder:
        work = WORK["digits-cnn"](seed, Path(folder))
    parts = {"train": work.train, "search": work.search, "certification": work.sealed}
    splits = {part: samples.columns() for part, samples in parts.items()}
    task = build_task(work.model, splits).task
    graph = trace(work.model, work.example)
    scores = unit_scores(task, work.model, [group for group in graph.groups if group.prunable])
    plan = close(
        Plan(tuple(Cut(name, keep_highest(scores[name], kept)) for name, kept in WIDTHS.items())),
        graph,
        scores,
    )
    plain = apply(work.model, plan, graph).model
    samples = tuple(task.calibration.batches(32, limit=SAMPLES))
    starts = {"as cut": plain, "refitted": compensate(plain, work.model, graph, plan, samples)}
    ladder = Ladder(rungs=("norms", "distillation"), task_kind="classification")
    images, labels = (torch.from_numpy(array) for array in work.sealed.columns())
    found = {}
    for start, student in starts.items():
        for name, (loss, between) in WAYS.items():
            made = recover(
                student,
                work.model,
                task.train,
                epochs=PASSES,
                loss=loss,
                ladder=replace(ladder, between=between),
            ).model
            found[f"{name}, {start}"] = _differences(work.model, made, images, labels)
    return found


def _differences(original: nn.Module, made: nn.Module, images: Tensor, labels: Tensor) -> list[int]:
    with torch.no_grad():
        right, kept = (model.eval()(images).argmax(1) == labels for model in (original, made))
    return [int((right & ~kept).sum()), int((~right & kept).sum())]


def page(rows: dict[str, dict[str, list[int]]], samples: int) -> str:
    """Return the table: what is lost and won, and the net loss against the usual way."""
    names = list(next(iter(rows.values())))
    usual = f"{next(iter(WAYS))}, refitted"
    net = {name: [row[name][0] - row[name][1] for row in rows.values()] for name in names}
    lines = [
        f"{len(rows)} seeds, {samples} samples each that were not trained on; {PASSES} passes.",
        "",
        f"| trained on, start | lost - won, by seed | mean net loss | less than {usual} (95% interval over seeds) |",
        "|---|---|---|---|",
    ]
    for name in names:
        gained = [before - now for before, now in zip(net[usual], net[name], strict=True)]
        low, high = interval(gained)
        told = ", ".join(f"{row[name][0]}-{row[name][1]}" for row in rows.values())
        ahead = "" if name == usual else f"{statistics.mean(gained):+.1f} [{low:+.1f}, {high:+.1f}]"
        lines.append(f"| {name} | {told} | {statistics.mean(net[name]):+.1f} | {ahead} |")
    title = (
        "# Labels beside the teacher, mixtures of samples, and where a long training starts\n\n"
        "`python -m bench.recovery.labels`. "
    )
    return title + "\n".join(lines) + "\n"


def main() -> None:
    """Run the seeds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    torch.set_num_threads(1)
    rows = {}
    for seed in range(parser.parse_args().seeds):
        rows[str(seed)] = run(seed)
        (RESULTS / "recovery_labels.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "recovery_labels.md").write_text(page(rows, 647))


if __name__ == "__main__":
    main()
