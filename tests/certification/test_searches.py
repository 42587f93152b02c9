"""Whole searches end to end, through `certify` and its ledger: how often is a certificate false?"""

import math

import numpy as np
import pytest

SEARCHES, CANDIDATES, FINALISTS, ATTEMPTS = 100, 200, 4, 3
SAMPLES, MARGIN, RATE = 400, 0.05, 0.12


def scores(drop: float, rng: np.random.Generator) -> np.ndarray:
    """Scores of a candidate whose base has every even sample right."""
    right = (np.arange(SAMPLES) % 2).astype(float)
    changed = rng.random(SAMPLES)
    right[(changed < RATE + drop) & (right == 1)] = 0
    right[(changed < RATE - drop) & (np.arange(SAMPLES) % 2 == 0)] = 1
    return right


def search(bench, drops: np.ndarray, rng: np.random.Generator) -> tuple[bool, bool]:
    """Return whether a false certificate came out, and whether the naive rule accepted a bad candidate.

    The user tries again with candidates that look ever safer as long as nothing is certified.
    """
    seen = drops + rng.normal(0, math.sqrt(RATE / SAMPLES), CANDIDATES)
    speed = drops + rng.normal(0, 0.3 * MARGIN, CANDIDATES)
    good = np.flatnonzero(seen <= MARGIN)
    naive_false = len(good) > 0 and drops[good[speed[good].argmax()]] >= MARGIN
    base = bench.scored("base", lambda: (np.arange(SAMPLES) % 2).astype(float))
    for attempt in range(ATTEMPTS):
        good = np.flatnonzero(seen <= MARGIN * (1 - 0.3 * attempt))
        chosen = good[np.argsort(-speed[good])[:FINALISTS]]
        order = chosen[np.argsort(seen[chosen])]
        named = [bench.scored(f"{attempt} {k}", lambda k=k: scores(drops[k], rng)) for k in order]
        result = bench.certify(named, margin=MARGIN, base=base) if named else None
        if result is not None and result.chosen is not None:
            return bool((drops[order[: result.chosen + 1]] >= MARGIN).any()), bool(naive_false)
    return False, bool(naive_false)


@pytest.mark.slow
def test_adaptive_searches_with_every_candidate_at_the_margin_certify_falsely_at_most_alpha_of_the_time(
    make_bench,
):
    rng = np.random.default_rng(0)
    drops = np.full(CANDIDATES, MARGIN)
    outcomes = np.array([search(make_bench(samples=SAMPLES), drops, rng) for _ in range(SEARCHES)])
    false, naive = outcomes.mean(axis=0)
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / SEARCHES)
    assert naive > 0.9


@pytest.mark.slow
def test_searches_on_both_sides_of_the_margin_do_certify(make_bench):
    rng = np.random.default_rng(1)
    drops = [rng.uniform(-1.0, 1.2, CANDIDATES) * MARGIN for _ in range(40)]
    benches = [make_bench(samples=SAMPLES) for _ in drops]
    false = np.mean([search(bench, drop, rng)[0] for bench, drop in zip(benches, drops, strict=True)])
    passed = [
        any(e["event"] == "outcome" and e["passed"] for e in bench.ledger.entries()) for bench in benches
    ]
    assert false <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 40)
    assert np.mean(passed) > 0.2
