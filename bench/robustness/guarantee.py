"""How often a certificate is false, with the whole search in the loop.

    python -m bench.robustness.guarantee [--runs 200] [--minutes 30]

A population without end is made of scikit-learn's digits: shifted by a pixel and with noise. One network is trained on
it. Each run draws new training, search and certification samples, searches (the real descent by pruning, on real
exported files), freezes finalists, certifies them, and then looks up the true drop of every certified file on
20,000 samples that no run has seen. Speed is not measured, and files run in this process, because neither matters here.
A certificate is false if the true drop is the margin or more. Adds to `bench/results/guarantee.json`.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tersor.certification.ledger import Ledger
from tersor.certification.seal import Seal
from tersor.cli.digits import Perceptron, load_digits
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import open_artefact
from tersor.loading.build import build_task
from tersor.loading.limit import Drop
from tersor.planning.plan import Plan
from tersor.search import run as run_module
from tersor.search import sealed as sealed_module
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.conduct import Enough
from tersor.search.descend import descend
from tersor.search.finalists import choose_finalists
from tersor.search.journal import Journal
from tersor.search.request import make_request
from tersor.search.run import Run, counted, with_file
from tersor.search.sealed import try_finalists

RESULTS = Path(__file__).parents[1] / "results"
MARGIN, CONFIDENCE = 0.04, 0.95
TRAIN, SEARCH, SEALED, TRUTH = 600, 300, 500, 20_000
#: Cuts come near the margin; integers alone hardly change an answer of this network.
NOISE, CANDIDATES, METHODS = 0.25, 4, ("prune",)


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` samples of the population and their labels."""
    rng = np.random.default_rng(seed)
    images, labels = load_digits()
    chosen = rng.integers(0, len(images), count)
    moved = np.stack([np.roll(images[i], rng.integers(-1, 2, 2), (1, 2)) for i in chosen])
    noise = rng.normal(0, NOISE, moved.shape)
    return (moved + noise).astype(np.float32), labels[chosen]


@lru_cache
def truth() -> tuple[np.ndarray, np.ndarray]:
    return draw(TRUTH, 10**9)


@lru_cache
def network() -> nn.Module:
    torch.manual_seed(0)
    model = Perceptron(64)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    images, labels = (torch.from_numpy(array) for array in draw(6000, 10**9 + 1))
    for _ in range(10):
        for index in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[index]), labels[index]).backward()
            optimizer.step()
    return model.eval()


def true_accuracy(artefact: Artefact) -> float:
    images, labels = truth()
    return float(np.mean(np.argmax(open_artefact(artefact)([images])[0], 1) == labels))


@contextmanager
def _here(threads: int = 1, patience_s: float = 0.0) -> Iterator:
    del patience_s
    yield partial(open_artefact, threads=threads)


def one_run(seed: int, folder: Path) -> dict[str, object]:
    """Return how one search ended, and the true drops of what it certified."""
    seeds = [seed * 10 + offset for offset in (1, 2, 3)]
    splits = {
        name: draw(count, one)
        for name, count, one in zip(
            ("train", "search", "certification"), (TRAIN, SEARCH, SEALED), seeds, strict=True
        )
    }
    task = build_task(network(), splits, seed=seed).task
    request = make_request(
        MARGIN, "onnxruntime", "size", None, {"seed": seed, "confidence": CONFIDENCE, "methods": METHODS}
    )
    base = counted(Candidate("original", Plan(), task.model), task.model, task.inputs)
    base = with_file(base, task, folder, request)
    assert base.artefact is not None
    assert base.quality is not None
    floor = Drop(MARGIN, relative=False).floor(base.quality.value)
    run = Run(task, request, Clock(), Journal(folder), base, base.artefact, (), MARGIN, floor)
    made: list[Candidate] = []

    def report(candidate: Candidate) -> None:
        made.append(candidate)
        if len(made) >= CANDIDATES:
            raise Enough

    with suppress(Enough):
        descend(run, report)
    finalists, _ = choose_finalists(run, made)
    seal = Seal(task.certification, Ledger(folder / "ledger.jsonl"))
    passed = try_finalists(run, finalists, seal).passed if finalists else ()
    original = true_accuracy(base.artefact)
    drops = [original - true_accuracy(c.artefact) for c in passed if c.artefact is not None]
    return {"seed": seed, "made": len(made), "finalists": len(finalists), "true_drops": drops}


def summary(rows: list[dict]) -> str:
    certified = [row for row in rows if row["true_drops"]]
    false = sum(max(row["true_drops"]) >= MARGIN for row in certified)
    rate = false / len(rows)
    allowed = 1 - CONFIDENCE
    spread = math.sqrt(allowed * (1 - allowed) / len(rows))
    bold = [max(row["true_drops"]) for row in certified] or [math.nan]
    return (
        "# False certificates, with the search in the loop\n\n"
        f"{len(rows)} searches on new samples each ({SEALED} sealed, margin {MARGIN}, {CONFIDENCE:.0%} confidence).\n\n"
        "| searches | with a certificate | with a false one | rate | allowed, with 3 standard errors |\n"
        "|---|---|---|---|---|\n"
        f"| {len(rows)} | {len(certified)} | {false} | {rate:.1%} | {allowed + 3 * spread:.1%} |\n\n"
        f"True drops of the boldest certified files: median {np.median(bold):.4f}, largest {max(bold):.4f}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=30.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run_module.opening_apart = sealed_module.opening_apart = _here
    path = RESULTS / "guarantee.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    end_s = time.monotonic() + 60 * arguments.minutes
    while len(rows) < arguments.runs and time.monotonic() < end_s:
        with tempfile.TemporaryDirectory(prefix="tersor-bench-") as folder:
            rows.append(one_run(len(rows), Path(folder)))
        path.write_text(json.dumps(rows, indent=1) + "\n")
        path.with_suffix(".md").write_text(summary(rows))


if __name__ == "__main__":
    main()
