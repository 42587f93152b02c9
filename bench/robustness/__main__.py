"""Searches under pressure, through the real command line, on scikit-learn's handwritten digits.

    python -m bench.robustness [--budgets 10] [--kills 10] [--minutes 60]

Budgets: a random budget, and the time from the start of the command to its end. Kills: SIGKILL at a random time of a
search, whether what lies on disk is usable, and what `tersor resume` makes of it beside an undisturbed search. Adds to
`bench/results/robustness.json` until the runs are complete, so it may be stopped and started again; delete the file to
begin anew. Writes `robustness.md` from it.
"""

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from safetensors.torch import save_file
from torch import nn

from tersor.certification.verify import Verdict, verify
from tersor.cli.digits import ConvNet, Perceptron, split_digits
from tersor.reporting.folder import find_faults

RESULTS = Path(__file__).parents[1] / "results"
#: Seconds between which budgets are drawn, evenly in their logarithm, and the budget of a search that is killed.
SHORTEST_S, LONGEST_S, KILLED_S = 40.0, 160.0, 60.0
#: Candidates of a search that is killed: the same for each, so that the ends can be compared.
CANDIDATES = 3
HIDDEN = 96
#: What is searched: a perceptron in few steps, for kills; and a network of convolutions that fills any budget.
NETWORKS = {"perceptron": lambda: Perceptron(HIDDEN), "convolutions": ConvNet}
NET = f"""
from tersor.cli.digits import ConvNet, Perceptron, split_digits

def perceptron():
    return Perceptron({HIDDEN})

def convolutions():
    return ConvNet()

def splits():
    return split_digits()
"""


@contextmanager
def workplace() -> Iterator[Path]:
    """Give a folder with trained networks and the references that the command line takes."""
    with tempfile.TemporaryDirectory(prefix="tersor-bench-") as name:
        folder = Path(name)
        (folder / "net.py").write_text(NET)
        for name in NETWORKS:
            save_file(dict(trained(name).state_dict()), folder / f"{name}.safetensors")
        yield folder


def trained(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    images, labels = (torch.from_numpy(array) for array in split_digits()["train"])
    for _ in range(12):
        for index in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[index]), labels[index]).backward()
            optimizer.step()
    return network


def tersor(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", "from tersor.cli import main; main()", *words]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment)


def search(folder: Path, name: str, *words: str) -> subprocess.Popen[str]:
    shutil.rmtree(folder / "out", ignore_errors=True)
    source = (f"net.py:{name}", "--data", "net.py:splits", "--weights", f"{name}.safetensors", "-o", "out")
    return tersor(folder, "optimize", *source, "--max-drop", "0.03", *words)


def one_budget(folder: Path, rng: random.Random) -> dict[str, object]:
    """Return a random budget, and the time that a search with it took from the start of its process to the end."""
    budget_s = math.exp(rng.uniform(math.log(SHORTEST_S), math.log(LONGEST_S)))
    begun_s = time.monotonic()
    process = search(folder, "convolutions", "--budget", f"{budget_s:.1f}s")
    said = process.communicate()[1]
    took_s = time.monotonic() - begun_s
    candidates = [path.parent for path in (folder / "out/search/candidates").glob("*/candidate.json")]
    if process.returncode not in (0, 3):
        raise RuntimeError(said)
    return {
        "budget_s": budget_s,
        "took_s": took_s,
        "status": process.returncode,
        "candidates": len(candidates) - 1,
    }


def undisturbed(folder: Path) -> dict[str, object]:
    begun_s = time.monotonic()
    process = search(folder, "perceptron", *_killed_words())
    process.communicate()
    return {"took_s": time.monotonic() - begun_s, **ending(folder / "out", process.returncode)}


def _killed_words() -> tuple[str, ...]:
    return ("--goal", "size", "--max-candidates", str(CANDIDATES), "--budget", f"{KILLED_S}s")


def one_kill(folder: Path, rng: random.Random, duration_s: float) -> dict[str, object]:
    """Return what a search left that was killed at a random time, and how it ended when it went on."""
    process = search(folder, "perceptron", *_killed_words())
    at_s = rng.uniform(0.0, duration_s)
    try:
        process.communicate(timeout=at_s)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    out = folder / "out"
    found: dict[str, object] = {"at_s": at_s, "ended_before": process.returncode != -9}
    if not out.exists():
        return found | {"left": "nothing: the search had not begun"}
    found |= {"left": "a usable folder" if usable(out) else "an unusable folder"}
    again = tersor(folder, "resume", "out")
    said = again.communicate()[1]
    found["made_before"] = said.count("made before")
    if again.returncode not in (0, 3):
        found["said"] = said
    return found | ending(out, again.returncode)


def usable(out: Path) -> bool:
    """Whether the folder is complete and its model answers the search samples well enough."""
    images, labels = split_digits()["search"]
    session = onnxruntime.InferenceSession(out / "model.onnx")
    answers = session.run(None, {session.get_inputs()[0].name: images})[0]
    return not find_faults(out) and float(np.mean(np.argmax(answers, 1) == labels)) > 0.9


def ending(out: Path, status: int) -> dict[str, object]:
    certified = (out / "certificate.json").exists() and verify(out).verdict is Verdict.VERIFIED
    size = (out / "model.onnx").stat().st_size
    return {"status": status, "certified": certified, "size_bytes": size}


def table(results: dict) -> str:
    lines = ["# Searches under pressure", "", f"Processor: {results['processor']}.", ""]
    lines += ["| budget | took | of the budget | candidates | status |", "|---|---|---|---|---|"]
    for row in results["budgets"]:
        share = row["took_s"] / row["budget_s"]
        lines.append(
            f"| {row['budget_s']:.0f} s | {row['took_s']:.0f} s | {share:.0%} | {row['candidates']} | {row['status']} |"
        )
    calm = results.get("undisturbed")
    if calm:
        lines += ["", f"Undisturbed: {calm['size_bytes']:,} bytes, certified: {calm['certified']}.", ""]
        lines += ["| killed at | left | resumed: status | certified | bytes |", "|---|---|---|---|---|"]
    for row in results["kills"]:
        end = f"{row['status']} | {row['certified']} | {row['size_bytes']:,}" if "status" in row else "| |"
        at = "ended before" if row["ended_before"] else f"{row['at_s']:.0f} s"
        lines.append(f"| {at} | {row['left']} | {end} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    from tersor.measurement.machine import this_machine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", type=int, default=10)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=60.0)
    arguments = parser.parse_args()
    end_s = time.monotonic() + 60 * arguments.minutes
    path = RESULTS / "robustness.json"
    results = json.loads(path.read_text()) if path.exists() else {"budgets": [], "kills": []}
    results["processor"] = this_machine().processor
    with workplace() as folder:
        while time.monotonic() < end_s:
            if len(results["kills"]) < arguments.kills and len(results["kills"]) <= len(results["budgets"]):
                results.setdefault("undisturbed", None)
                results["undisturbed"] = results["undisturbed"] or undisturbed(folder)
                rng = random.Random(1000 + len(results["kills"]))
                results["kills"].append(one_kill(folder, rng, results["undisturbed"]["took_s"]))
            elif len(results["budgets"]) < arguments.budgets:
                results["budgets"].append(one_budget(folder, random.Random(len(results["budgets"]))))
            else:
                break
            path.write_text(json.dumps(results, indent=1) + "\n")
            path.with_suffix(".md").write_text(table(results))


if __name__ == "__main__":
    main()
