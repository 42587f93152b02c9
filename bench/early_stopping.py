"""`python -m bench.early_stopping [--runs 200]`: how many samples certification evaluates when it may stop early.

Right-or-wrong scores, drawn anew in each run; beside it the exact test on all samples. Writes
`bench/results/early_stopping.{json,md}`.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from tersor.certification.demand import Demand
from tersor.certification.early import Walk, walk
from tersor.certification.evidence.betting import Betting
from tersor.certification.evidence.exact import ExactScore
from tersor.certification.evidence.outcomes import Pairs
from tersor.loading.metric import Metric

RESULTS = Path(__file__).with_name("results")
ALPHA, MARGIN, PART = 0.05, 0.01, 64
SCORE = Metric("score", value=lambda outputs, _: float(outputs.mean()), scores=lambda outputs, _: outputs)
#: Samples, how often base and candidate differ, true drop.
CASES = (
    (5_000, 0.01, 0.0),
    (5_000, 0.03, 0.0),
    (10_000, 0.03, 0.0),
    (10_000, 0.04, 0.003),
    (10_000, 0.03, 0.01),
    (10_000, 0.06, 0.03),
)


def draw(rng: np.random.Generator, samples: int, differ: float, drop: float) -> Pairs:
    """Return scores that differ on a share `differ` of the samples and drop by `drop` in the mean."""
    kind = rng.choice(3, samples, p=[(differ + drop) / 2, (differ - drop) / 2, 1 - differ])
    right = (rng.random(samples) < 0.9).astype(float)
    base, candidate = np.where(kind == 0, 1.0, right), np.where(kind == 1, 1.0, right)
    return Pairs(np.where(kind == 1, 0.0, base), np.where(kind == 0, 0.0, candidate))


def parts(scores: np.ndarray):
    return iter([{"score": scores[start : start + PART]} for start in range(0, len(scores), PART)])


def case(samples: int, differ: float, drop: float, runs: int) -> dict:
    """Return how often each way certifies, and how many samples stopping early evaluates."""
    rng, used, stopped, whole = np.random.default_rng(0), [], 0, 0
    for _ in range(runs):
        pairs = draw(rng, samples, differ, drop)
        seen = walk(
            Walk(parts(pairs.base)), Walk(parts(pairs.candidate)), [Demand(SCORE, MARGIN)], alpha=ALPHA
        )
        used.append(len(seen[0]))
        stopped += Betting()(seen[0], MARGIN).p <= ALPHA
        whole += ExactScore()(pairs, MARGIN).p <= ALPHA
    return {
        "samples": samples,
        "disagreement": differ,
        "drop": drop,
        "runs": runs,
        "evaluated_median": float(np.median(used)),
        "evaluated_mean": float(np.mean(used)),
        "certified_early": stopped / runs,
        "certified_exact": whole / runs,
    }


def page(rows: list[dict], runs: int) -> str:
    lines = [
        "# Stopping early",
        "",
        f"`python -m bench.early_stopping --runs {runs}`: right or wrong for each sample, margin {MARGIN:.0%}, level "
        f"{ALPHA:.0%}, {runs} draws for each row, parts of {PART} samples. Evaluated: samples read before the "
        "decision, to certify or to give up.",
        "",
        "| samples | disagreement | true drop | evaluated, median | mean | certified | exact test on all, certified |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['samples']:,} | {row['disagreement']:.0%} | {row['drop']:.3f} | {row['evaluated_median']:,.0f} "
        f"| {row['evaluated_mean']:,.0f} | {row['certified_early']:.1%} | {row['certified_exact']:.1%} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    rows = [case(*numbers, runs) for numbers in CASES]
    (RESULTS / "early_stopping.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "early_stopping.md").write_text(page(rows, runs))
    print(page(rows, runs))


if __name__ == "__main__":
    main()
