"""How often a comparison of latencies errs: the same file against itself, and a file that is truly 5 per cent faster.

    python -m bench.latency [--runs 200] [--power-runs 40] [--minutes 60] [--busy]

A second process keeps the other core busy throughout: one of its own, or with `--busy` what runs there anyway. Adds to
`bench/results/latency.json` until the runs are complete, so it may be stopped and started again; delete the file to
begin anew. Writes `latency.md` from it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from tersor.analysis.facts import facts
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export
from tersor.measurement.machine import this_machine
from tersor.measurement.measure import compare
from tersor.measurement.result import Verdict

RESULTS = Path(__file__).parents[1] / "results"
INPUTS = (torch.zeros(1, 32, 16, 16),)
#: Equal layers, one after the other: 21 against 20 is 1.05 times the work.
LAYERS = {"base": 21, "faster": 20}
#: Row -> the two files that are compared.
ROWS = {"a file with itself": ("base", "base"), "a file 5% faster": ("base", "faster")}
#: Time cap of one comparison without opening the files, seconds.
SECONDS = 2.0


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


def started(folder: Path) -> dict:
    """Return what earlier runs found, or an empty result."""
    path = folder / "latency.json"
    if path.exists():
        return json.loads(path.read_text())
    macs = {name: facts(chain(layers), INPUTS).macs for name, layers in LAYERS.items()}
    return {
        "machine": asdict(this_machine()),
        "seconds": SECONDS,
        "macs": macs,
        "runs": {n: [] for n in ROWS},
    }


def one(base: Artefact, candidate: Artefact) -> dict:
    start = time.monotonic()
    found = compare(base, candidate, INPUTS, seconds=SECONDS)
    return {
        "ratio": round(found.ratio, 5),
        "low": round(found.low, 5),
        "high": round(found.high, 5),
        "verdict": found.verdict.name,
        "contention": round(found.contention, 3),
        "took_s": round(time.monotonic() - start, 2),
        "load": round(this_machine().load, 1),
    }


def write(result: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latency.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "latency.md").write_text(page(result))


def page(result: dict) -> str:
    runs = [run for row in result["runs"].values() for run in row]
    more_work = result["macs"]["base"] / result["macs"]["faster"]
    lines = [
        "# How often a comparison of latencies errs",
        "",
        f"`python -m bench.latency` on {result['machine']['processor']}, {result['machine']['cores']} cores, with a "
        f"second process busy throughout; load average {middle(runs, 'load', 1):.1f} (median).",
        f"Each run is `compare(..., seconds={result['seconds']:g})` from scratch in six launches of fresh processes "
        f"and takes {middle(runs, 'took_s', 1):.0f} s (median). The faster file does the work of the base divided by "
        f"{more_work:.3f}, counted in multiply-adds. Contention: share of the turns in which the system took the "
        "processor away.",
        "",
        "| comparison | runs | faster | slower | no difference shown | median ratio (5% to 95%) | median width "
        "| contention |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [line(name, row) for name, row in result["runs"].items() if row]) + "\n"


def middle(runs: list[dict], key: str, places: int, share: float = 0.5) -> float:
    ordered = sorted(run[key] for run in runs)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], places)


def line(name: str, row: list[dict]) -> str:
    verdicts = Counter(run["verdict"] for run in row)
    widths = [{"width": run["high"] / run["low"] - 1} for run in row]
    shares = " | ".join(f"{verdicts[v.name]} ({verdicts[v.name] / len(row):.1%})" for v in Verdict)
    return (
        f"| {name} | {len(row)} | {shares} | {middle(row, 'ratio', 3):.3f} "
        f"({middle(row, 'ratio', 3, 0.05):.3f} to {middle(row, 'ratio', 3, 0.95):.3f}) "
        f"| {middle(widths, 'width', 4):.1%} | {sum(run['contention'] for run in row) / len(row):.0%} |"
    )


def next_row(result: dict, wanted: dict[str, int]) -> str | None:
    """Return the row that is furthest behind; None if all are complete."""
    shares = {name: len(result["runs"][name]) / max(count, 1) for name, count in wanted.items()}
    name = min(shares, key=lambda key: shares[key])
    return name if shares[name] < 1 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--power-runs", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--busy", action="store_true", help="other work keeps the second core busy already")
    options = parser.parse_args()
    wanted = dict(zip(ROWS, (options.runs, options.power_runs), strict=True))
    result, end = started(options.results), time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder, nullcontext() if options.busy else busy_neighbour():
        files = {name: export(chain(n), INPUTS, Path(folder) / f"{name}.onnx") for name, n in LAYERS.items()}
        while (name := next_row(result, wanted)) and time.monotonic() < end:
            result["runs"][name].append(one(*(files[file] for file in ROWS[name])))
            write(result, options.results)
            print(name, result["runs"][name][-1], flush=True)
    print((options.results / "latency.md").read_text())


if __name__ == "__main__":
    main()
