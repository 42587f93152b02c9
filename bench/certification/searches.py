"""Simulated searches: 200 candidates, a choice on search data, attempts on sealed data, and the naive rule beside."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tersor.certification.evidence.power import rejection_region
from tersor.certification.ledger import attempt_alpha

ALPHA = 0.05
CANDIDATES, FINALISTS, ATTEMPTS = 200, 8, 4


@dataclass(frozen=True)
class Scene:
    """Where the true drops lie, in units of the margin, and how much data there is."""

    name: str
    lowest: float
    highest: float
    margin: float = 0.01
    searched: int = 5000
    sealed: int = 5000


SCENES = (
    Scene("every candidate exactly at the margin", 1.0, 1.0),
    Scene("every candidate 0 to 60% beyond the margin", 1.0, 1.6),
    Scene("candidates on both sides of the margin", 0.0, 2.0),
    Scene(
        "both sides, 2,000 sealed samples, margin 2 points", 0.0, 2.0, margin=0.02, searched=2000, sealed=2000
    ),
)


@dataclass(frozen=True)
class Ending:
    """What one simulated search came to.

    Attributes:
        certified: whether a finalist was certified.
        false: whether *any* certified finalist truly drops by the margin or more.
        attempts: attempts used.
        naive: whether the naive rule accepted a candidate.
        naive_false: whether that candidate truly drops by the margin or more.
        possible: whether the finalists of the first attempt held a candidate that truly is within the margin.
    """

    certified: bool
    false: bool
    attempts: int
    naive: bool
    naive_false: bool
    possible: bool


@lru_cache
def limits(n: int, margin: float, attempt: int) -> np.ndarray:
    """Return the largest b that is certified for each b + c; the decisions of `certify` in table form."""
    return rejection_region(n, margin, attempt_alpha(ALPHA, attempt)).limits


def simulate(scene: Scene, rng: np.random.Generator) -> Ending:
    """Run one search: measure, choose, try to certify, go on adaptively while nothing is certified."""
    pool = candidates(scene, CANDIDATES, rng)
    naive = fastest_that_looks_good(pool, scene.margin)
    naive_false = naive is not None and bool(pool.drop[naive] >= scene.margin)
    shared = rng.random(scene.sealed)
    possible = bool((pool.drop[finalists(pool, scene.margin)] < scene.margin).any())
    for attempt in range(1, ATTEMPTS + 1):
        # After a refusal the user bets on candidates that looked better by a growing distance.
        order = finalists(pool, scene.margin * (1 - 0.2 * (attempt - 1)))
        passed = sequence(scene, pool, order, shared, attempt, rng)
        if passed:
            false = bool((pool.drop[order[:passed]] >= scene.margin).any())
            return Ending(True, false, attempt, naive is not None, naive_false, possible)
        pool = retrained(scene, pool, order, rng)
    return Ending(False, False, ATTEMPTS, naive is not None, naive_false, possible)


@dataclass(frozen=True)
class Pool:
    """Candidates: true drop, true disagreement rate, drop seen on the search data, speed."""

    drop: np.ndarray
    rate: np.ndarray
    seen: np.ndarray
    speed: np.ndarray


def candidates(scene: Scene, count: int, rng: np.random.Generator) -> Pool:
    drop = scene.margin * rng.uniform(scene.lowest, scene.highest, count)
    rate = np.maximum(rng.uniform(0.02, 0.08, count), 1.2 * drop)
    cells = np.stack([(rate + drop) / 2, (rate - drop) / 2, 1 - rate], axis=1)
    lost, won, _ = rng.multinomial(scene.searched, cells).T
    # Bolder candidates drop more, so speed follows the drop, with noise; the user wants the fastest.
    return Pool(drop, rate, (lost - won) / scene.searched, drop + rng.normal(0, 0.3 * scene.margin, count))


def fastest_that_looks_good(pool: Pool, margin: float) -> int | None:
    good = np.flatnonzero(pool.seen <= margin)
    return int(good[pool.speed[good].argmax()]) if len(good) else None


def finalists(pool: Pool, threshold: float) -> np.ndarray:
    """Return the fastest that look good, from the safest to the boldest."""
    good = np.flatnonzero(pool.seen <= threshold)
    if not len(good):
        good = np.argsort(pool.seen)[:1]
    chosen = good[np.argsort(-pool.speed[good])[:FINALISTS]]
    return chosen[np.argsort(pool.seen[chosen])]


def sequence(
    scene: Scene, pool: Pool, order: np.ndarray, shared: np.ndarray, attempt: int, rng: np.random.Generator
) -> int:
    """Return how many finalists are certified before the first failure.

    Half of the samples decide for all finalists and attempts alike (hard samples are hard for every candidate), the
    other half for each alone.
    """
    largest = limits(scene.sealed, scene.margin, attempt)
    for place, k in enumerate(order):
        own = np.where(np.arange(scene.sealed) % 2, shared, rng.random(scene.sealed))
        lost = int((own < (pool.rate[k] + pool.drop[k]) / 2).sum())
        won = int((own > 1 - (pool.rate[k] - pool.drop[k]) / 2).sum())
        if lost > largest[lost + won]:
            return place
    return len(order)


def retrained(scene: Scene, pool: Pool, refused: np.ndarray, rng: np.random.Generator) -> Pool:
    """Replace the refused candidates by new ones."""
    new = candidates(scene, len(refused), rng)
    fields = []
    for old, fresh in (
        (pool.drop, new.drop),
        (pool.rate, new.rate),
        (pool.seen, new.seen),
        (pool.speed, new.speed),
    ):
        kept = old.copy()
        kept[refused] = fresh
        fields.append(kept)
    return Pool(*fields)


@dataclass(frozen=True)
class Rates:
    """Rates over many searches, each with its standard error.

    Attributes:
        scene: where the true drops lie.
        searches: number of searches.
        false: fraction with a false certificate, whatever the attempt.
        false_se: its standard error.
        naive_false: fraction in which the naive rule accepts a candidate beyond the margin.
        naive_false_se: its standard error.
        certified: fraction that ends with a certificate.
        possible: fraction in which a first finalist truly was within the margin.
        attempts: mean number of attempts.
    """

    scene: str
    searches: int
    false: float
    false_se: float
    naive_false: float
    naive_false_se: float
    certified: float
    possible: float
    attempts: float


def rates(scene: Scene, searches: int, seed: int = 0) -> Rates:
    rng = np.random.default_rng(seed)
    ends = [simulate(scene, rng) for _ in range(searches)]
    false, naive, certified, possible = (
        float(np.mean([getattr(end, name) for end in ends]))
        for name in ("false", "naive_false", "certified", "possible")
    )
    error = lambda rate: (rate * (1 - rate) / searches) ** 0.5
    attempts = float(np.mean([end.attempts for end in ends]))
    return Rates(
        scene.name, searches, false, error(false), naive, error(naive), certified, possible, attempts
    )
