"""The tools side by side.

    python -m bench.peers [--work digits-cnn ...] [--tools tersor ...] [--seeds 0 1 2] [--minutes 60] [--quick]

Makes every file once, then measures the files of one piece of work in turns. Adds to `bench/results/peers.json` what
is not in it yet, so it may be stopped and started again; what is made is kept in `bench/cache/peers`. `--quick`: the
tools that do not train, on the two smallest pieces of work.
"""

import argparse
import json
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from bench.peers.page import page
from bench.peers.piece import Samples, Work
from bench.peers.recipes import LEFT_OUT, RECIPES
from bench.peers.work import ONE_SEED, WORK, missing
from tersor.certification.evidence.exact import ExactScore
from tersor.certification.evidence.outcomes import Pairs
from tersor.errors import MeasurementError
from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.export import open_artefact
from tersor.measurement.machine import this_machine, usable_cores
from tersor.measurement.measure import measure_all
from tersor.measurement.result import Comparison

HERE = Path(__file__).resolve().parent
RESULTS, CACHE = HERE.parent / "results", HERE.parent / "cache" / "peers"
BASE = "ONNX Runtime"
#: Tools that do not train, and take networks of linear layers alone.
QUICK = [
    name for name in RECIPES if "tersor" not in name and "torch" not in name.lower() and "int4" not in name
]
PACKAGES = ("torch", "onnxruntime", "openvino", "nncf", "torch-pruning", "torchao", "executorch", "numpy")


def make(work: Work, name: str, seed: int, folder: Path) -> dict:
    """Run one recipe; return its entry, made before or now."""
    stored = folder / "made.json"
    if stored.exists():
        return json.loads(stored.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    start = time.monotonic()
    try:
        made = RECIPES[name](work, folder, seed)
        entry = {"artefact": made.artefact.to_json(), "note": made.note, **quality(work, made.artefact)}
    except Exception as error:
        traceback.print_exc()
        entry = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    entry["made_s"] = round(time.monotonic() - start, 1)
    entry["made_peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    stored.write_text(json.dumps(entry))
    print(work.name, seed, name, {key: entry[key] for key in entry if key != "artefact"}, flush=True)
    return entry


def quality(work: Work, artefact: Artefact) -> dict:
    """Return accuracy on the sealed samples, and whether they show that the drop is within the margin."""
    session, labels = open_artefact(artefact), work.sealed.labels
    # One batch size throughout: a torch-compile file compiles each size that it meets.
    found = np.concatenate([classes(session, part) for part in work.sealed.batches(32)])
    pairs = Pairs((work.answers == labels).astype(float), (found == labels).astype(float))
    test = ExactScore()(pairs, work.margin)
    return {
        "accuracy": float((found == labels).mean()),
        "original_accuracy": float((work.answers == labels).mean()),
        "p": test.p,
        "sealed": len(labels),
    }


def classes(session: Session, samples: Samples) -> np.ndarray:
    """Return the classes that a file gives a batch, filled up to 32 samples."""
    filled = samples[np.arange(32) % len(samples)]
    # OpenVINO gives an axis too many, of length 1, where NNCF has quantized a network that reads one position alone.
    return session(filled.inputs)[0].reshape(len(filled), -1).argmax(1)[: len(samples)]


#: Samples a call, threads, fresh processes, whether files for torch take part: they take ten seconds to open.
SETTINGS = ((1, 1, 6, True), (32, 1, 2, True), (1, 2, 2, False), (32, 2, 2, False))


def measure(
    work: Work, entries: dict[str, dict], folder: Path, count: int, end: float
) -> tuple[dict[str, dict], bool]:
    """Time all files in turns against the free ONNX Runtime baseline; say whether the time sufficed for all settings.

    Each setting is stored as soon as it is measured.
    """
    files = {n: Artefact.from_json(e["artefact"]) for n, e in entries.items() if "artefact" in e}
    stored = folder / "timed.json"
    timed = json.loads(stored.read_text()) if stored.exists() else {}
    for batch, threads, launches, with_torch in SETTINGS[:count]:
        for slow in (False, True)[: 1 + with_torch]:
            group = [n for n, f in files.items() if (f.runtime == "torch-compile") is slow and n != BASE]
            key = f"{batch}x{threads}{' torch' if slow else ''}"
            if threads > usable_cores() or not group or set(timed.get(key, {})) >= set(group):
                continue
            if time.monotonic() > end:
                return _by_file(files, timed), False
            results = measure_all(
                files[BASE],
                [files[name] for name in group],
                work.example,
                threads=threads,
                seconds=1.0,
                batch=batch,
                launches=2 if slow else launches,
            )
            timed[key] = {name: numbers(result) for name, result in zip(group, results, strict=True)}
            base = next(result.base for result in results if isinstance(result, Comparison))
            timed[key] |= {} if slow else {BASE: {**asdict(base), "ratio": 1.0}}
            stored.write_text(json.dumps(timed))
    return _by_file(files, timed), True


def _by_file(files: dict[str, Artefact], timed: dict[str, dict]) -> dict[str, dict]:
    return {
        name: {key.removesuffix(" torch"): found[name] for key, found in timed.items() if name in found}
        for name in files
    }


def numbers(result: Comparison | MeasurementError) -> dict:
    if isinstance(result, MeasurementError):
        return {"failed": str(result).splitlines()[0][:300]}
    speed = {key: getattr(result, key) for key in ("ratio", "low", "high", "contention", "launches")}
    return {**asdict(result.candidate), **speed, "verdict": result.verdict.name}


def started(folder: Path) -> dict:
    path = folder / "peers.json"
    if path.exists():
        return json.loads(path.read_text())
    return {"machine": asdict(this_machine()), "rows": []}


def write(result: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    result["versions"] = {name: version(name) for name in PACKAGES if find_spec(name.replace("-", "_"))}
    there = {row["work"] for row in result["rows"]}
    result["left_out"] = LEFT_OUT
    result["left_out_work"] = {name: missing(name) for name in WORK if name not in there and missing(name)}
    (folder / "peers.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "peers.md").write_text(page(result))


def one(name: str, seed: int, tools: Sequence[str], end: float) -> list[dict] | None:
    """Return the rows of one piece of work; None when the time is up first."""
    folder = CACHE / f"{name}-{seed}"
    work = WORK[name](seed, folder)
    entries = {}
    places = {tool: folder / tool.replace(" ", "-") for tool in RECIPES}
    # What was made before is timed again with the new files, so that all run in the same turns.
    for tool in (t for t in RECIPES if t in tools or (places[t] / "made.json").exists()):
        if time.monotonic() > end and not (places[tool] / "made.json").exists():
            return None
        entries[tool] = make(work, tool, seed, places[tool])
    timed, complete = measure(work, entries, folder, len(SETTINGS) if seed == 0 else 1, end)
    return [
        {
            "work": name,
            "seed": seed,
            "tool": tool,
            "machine": this_machine().processor,
            "complete": complete,
            "margin": work.margin,
            "budget_s": work.budget_s,
            "about": work.about,
            "parameters": sum(p.numel() for p in work.model.parameters()),
            "size_bytes": json.loads(entry["artefact"])["size_bytes"] if "artefact" in entry else None,
            **{key: value for key, value in entry.items() if key != "artefact"},
            "speed": timed.get(tool, {}),
        }
        for tool, entry in entries.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs="+", choices=list(WORK), default=list(WORK))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tools", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--minutes", type=float, default=300.0)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tools = QUICK if options.quick else list(dict.fromkeys((BASE, *options.tools)))
    names = ["breast-cancer-mlp", "digits-mlp"] if options.quick else options.work
    seeds = [0] if options.quick else options.seeds
    result, end = started(options.results), time.monotonic() + 60 * options.minutes
    for seed in seeds:
        for name in names:
            mine = [row for row in result["rows"] if (row["work"], row["seed"]) == (name, seed)]
            done = {row["tool"] for row in mine if row["complete"]}
            if done >= set(tools) or (seed and name in ONE_SEED):
                continue
            if missing(name):
                print(f"skipped: {name}: {missing(name)}")
                continue
            found = one(name, seed, tools, end)
            if found is None:
                print("The time is up; start again to go on.")
                return 0
            again = {(row["work"], row["seed"], row["tool"]) for row in found}
            kept = [row for row in result["rows"] if (row["work"], row["seed"], row["tool"]) not in again]
            result["rows"] = sorted(kept + found, key=lambda row: list(RECIPES).index(row["tool"]))
            write(result, options.results)
    write(result, options.results)
    print((options.results / "peers.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
