"""How often a comparison of latencies errs: the same file against itself, and a file that is truly 5 per cent faster.

    python -m bench.latency [--runs 200] [--power-runs 40]

A second process keeps the other core busy throughout. Writes `bench/results/latency.json` and `.md`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export
from tersor.measurement.machine import this_machine
from tersor.measurement.measure import compare
from tersor.measurement.result import Comparison, Verdict

RESULTS = Path(__file__).parents[1] / "results"
INPUTS = (torch.randn(1, 32, 16, 16),)
#: Layers of equal cost: 42 against 40 is a speed-up of 1.05.
LAYERS = {"base": 42, "faster": 40}
#: What each comparison may take, seconds.
SECONDS = 3.0


def chain(layers: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()) for _ in range(layers)))


@contextmanager
def busy_neighbour():
    process = subprocess.Popen([sys.executable, "-m", "bench.latency.neighbour"])
    try:
        time.sleep(3.0)
        yield
    finally:
        process.kill()
        process.wait()


def repeat(base: Artefact, candidate: Artefact, runs: int) -> list[Comparison]:
    found = []
    for run in range(runs):
        found.append(compare(base, candidate, INPUTS, seconds=SECONDS))
        last = found[-1]
        print(
            f"{run + 1}/{runs} {last.ratio:.4f} [{last.low:.4f}, {last.high:.4f}] {last.verdict.name}",
            flush=True,
        )
    return found


def summary(runs: list[Comparison]) -> dict[str, object]:
    verdicts = Counter(run.verdict.name for run in runs)
    ratios = sorted(run.ratio for run in runs)
    widths = sorted(run.high / run.low - 1 for run in runs)
    return {
        "runs": len(runs),
        "verdicts": {verdict.name: verdicts[verdict.name] for verdict in Verdict},
        "ratio_median": ratios[len(ratios) // 2],
        "ratio_p5": ratios[len(ratios) // 20],
        "ratio_p95": ratios[-1 - len(ratios) // 20],
        "interval_width_median": widths[len(widths) // 2],
        "contention_mean": sum(run.contention for run in runs) / len(runs),
        "comparisons": [[run.ratio, run.low, run.high] for run in runs],
    }


def write(result: dict) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latency.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "latency.md").write_text(page(result))


def page(result: dict) -> str:
    lines = [
        "# How often a comparison of latencies errs",
        "",
        f"`python -m bench.latency` on {result['machine']['processor']}, {result['machine']['cores']} cores, with a "
        f"second process busy throughout (load average {result['machine']['load']:.0f}).",
        f"Each row repeats `compare(..., seconds={result['seconds']})` from scratch.",
        "",
        "| comparison | runs | faster | slower | no difference shown | median ratio (5% to 95%) | median width |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        verdicts = row["verdicts"]
        shares = " | ".join(f"{verdicts[v.name] / row['runs']:.1%}" for v in Verdict)
        lines.append(
            f"| {name} | {row['runs']} | {shares} | {row['ratio_median']:.3f} "
            f"({row['ratio_p5']:.3f} to {row['ratio_p95']:.3f}) | {row['interval_width_median']:.1%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--power-runs", type=int, default=40)
    options = parser.parse_args()
    rows: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder, busy_neighbour():
        files = {name: export(chain(n), INPUTS, Path(folder) / f"{name}.onnx") for name, n in LAYERS.items()}
        plan = {
            "a file 5% faster": (files["base"], files["faster"], options.power_runs),
            "a file with itself": (files["base"], files["base"], options.runs),
        }
        for name, (base, candidate, runs) in plan.items():
            rows[name] = summary(repeat(base, candidate, runs))
            write({"machine": asdict(this_machine()), "seconds": SECONDS, "rows": rows})


if __name__ == "__main__":
    main()
