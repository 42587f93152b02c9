"""`python -m bench.recovery.transformer`: rate and dropout of a short recovery of MiniLM on SST-2.

Half of its inner units are cut. Each run imitates the original for as many passes; the distance to it on training
samples says whether the network came closer. Needs the network that bench/bases trains.
"""

import json
import sys
from pathlib import Path

from torch import nn

from bench.joint.rows import Row, minilm, one_thread
from tersor.graph.trace import trace
from tersor.loading.evaluate import evaluate
from tersor.loading.task import Task
from tersor.measurement.machine import this_machine
from tersor.planning.plan import Cut, Plan
from tersor.pruning.compensate import compensate
from tersor.pruning.select import keep_highest
from tersor.recovery.recover import Ladder, recover
from tersor.search.harm import SAMPLES, unit_scores
from tersor.surgery.apply import apply, close

RESULTS = Path(__file__).parents[1] / "results"
RATES, PASSES = (1e-4, 3e-5, 1e-5), 0.5


def cut(row: Row, task: Task) -> nn.Module:
    """Return the network with half of the units inside each layer, refitted."""
    graph = trace(row.model, task.inputs)
    inner = [group for group in graph.groups if group.prunable and "intermediate" in group.name]
    scores = unit_scores(task, row.model, inner)
    halved = Plan(tuple(Cut(name, keep_highest(units, len(units) // 2)) for name, units in scores.items()))
    plan = close(halved, graph, scores)
    samples = tuple(task.calibration.batches(32, limit=SAMPLES))
    return compensate(apply(row.model, plan, graph).model, row.model, graph, plan, samples)


def table(rows: list[dict], original: float, start: float, machine: str) -> str:
    """Return the runs as Markdown."""
    lines = [
        "# A short recovery of a transformer",
        "",
        f"`python -m bench.recovery.transformer` on {machine}: MiniLM on SST-2 with half of its inner units, refitted, "
        f"trained for {PASSES:g} passes; accuracy on the development sentences, {original:.4f} of the original and "
        f"{start:.4f} before training.",
        "",
        "| dropout | peak rate of AdamW | distance before | after | kept | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {'on' if row['dropout'] else 'off'} | {row['lr']:g} | {row['before']:.4f} | {row['after']:.4f} | "
        f"{'yes' if row['kept'] else 'no'} | {row['accuracy']:.4f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run each combination, and write after each."""
    one_thread()
    row = minilm()
    if row is None:
        print("skipped: the trained network is missing; bench/bases says how to make it")
        return 0
    task = row.task()
    student, rows = cut(row, task), []
    original, start = (evaluate(task.metric, model, task.search) for model in (row.model, student))
    for dropout in (False, True):
        for lr in RATES:
            ladder = Ladder(rungs=("distillation",), task_kind=task.kind, lr=lr, dropout=dropout)
            made = recover(student, row.model, task.train, epochs=PASSES, optimizer="adamw", ladder=ladder)
            (rung,) = made.rungs
            accuracy = evaluate(task.metric, made.model, task.search)
            rows.append(
                {
                    "dropout": dropout,
                    "lr": lr,
                    "before": rung.before,
                    "after": rung.after,
                    "kept": rung.kept,
                    "accuracy": accuracy,
                }
            )
            words = table(rows, original, start, this_machine().processor)
            (RESULTS / "recovery_transformer.json").write_text(json.dumps(rows, indent=1) + "\n")
            (RESULTS / "recovery_transformer.md").write_text(words)
    print(words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
