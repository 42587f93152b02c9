"""Evaluation that stops when the betting e-process has decided."""

import hashlib

import numpy as np
import pytest
import torch

from tersor.certification.certificate import Certificate
from tersor.certification.certify import Contender, certify_all
from tersor.certification.demand import Demand
from tersor.certification.early import Walk, walk
from tersor.certification.evidence.registry import TESTS
from tersor.certification.store import load_outcomes, save_certification
from tersor.certification.verify import Verdict, verify
from tersor.errors import ArgumentError, CertificateError, DataError
from tersor.loading.metric import Metric

OVERLAP = Metric("overlap", value=lambda o, t: 0.0, scores=lambda o, t: o[:, 0])
PART = 100


def parts(scores: np.ndarray):
    return iter([{"overlap": scores[start : start + PART]} for start in range(0, len(scores), PART)])


def contender(name: str, scores: np.ndarray, read: list[str] | None = None) -> Contender:
    def stream():
        for part in parts(scores):
            if read is not None:
                read.append(name)
            yield part

    return Contender(name, name, lambda: scores, stream=stream)


def early(bench, base, *finalists, margin=0.02):
    demands = [Demand(OVERLAP, margin)]
    return certify_all(base, finalists, seal=bench.seal, demands=demands, early_stop=True)


def base_scores(samples=2000):
    return np.random.default_rng(0).uniform(0.5, 1.0, samples)


def test_what_is_clear_is_decided_on_a_part_of_the_samples(bench):
    read: list[str] = []
    scores = base_scores()
    result = early(bench, contender("base", scores, read), contender("small", scores - 0.001, read))
    assert result.certificate.holds
    used = result.certificate.evidence.n
    assert 0 < used < 1000
    assert read.count("base") == read.count("small") == used / PART
    assert f"On the first {used} of them, which were enough, it was 0.001 lower" in result.certificate.words()
    assert result.certificate.base_quality is None


def test_a_hopeless_finalist_is_given_up_and_the_bolder_one_is_never_read(bench):
    read: list[str] = []
    scores = base_scores()
    result = early(
        bench,
        contender("base", scores),
        contender("bad", scores - 0.3, read),
        contender("next", scores, read),
    )
    assert [c.decision.name for c in result.certificates] == ["REFUSED", "NOT_TESTED"]
    assert read == ["bad"]


def test_the_base_is_evaluated_once_and_no_further_than_the_longest_walk(bench):
    read: list[str] = []
    scores = base_scores()
    noisy = scores - np.random.default_rng(1).choice([0.0, 0.4], len(scores), p=[0.97, 0.03])
    result = early(bench, contender("base", scores, read), contender("a", scores), contender("b", noisy))
    used = [c.evidence.n for c in result.certificates]
    assert used[0] < used[1]
    assert len(read) == used[1] / PART


@pytest.mark.parametrize("drop", [0.0, 0.005, 0.015, 0.03])
def test_stopping_certifies_only_what_the_whole_walk_certifies(drop):
    rng = np.random.default_rng(int(1000 * drop))
    for _ in range(20):
        base = rng.uniform(0.3, 1.0, 3000)
        candidate = np.clip(base - rng.normal(drop, 0.1, 3000), 0, 1)
        pairs = walk(Walk(parts(base)), Walk(parts(candidate)), [Demand(OVERLAP, 0.02)], alpha=0.05)[0]
        wealth = TESTS["betting"].log_wealth(base - candidate, 0.02)
        stopped = TESTS["betting"](pairs, 0.02).p <= 0.05
        whole = bool(wealth.max() >= np.log(20))
        assert stopped <= whole
        assert whole <= stopped or len(pairs) < 3000, "only futility may lose what the whole walk shows"


def test_a_candidate_at_the_margin_is_certified_no_more_often_than_the_level():
    rng = np.random.default_rng(0)
    runs, samples = 400, 1000
    held = 0
    for _ in range(runs):
        base = (rng.random(samples) < 0.9).astype(float)
        lost = (rng.random(samples) < 0.02 / 0.9) & (base == 1)
        pairs = walk(
            Walk(parts(base)), Walk(parts(np.where(lost, 0.0, base))), [Demand(OVERLAP, 0.02)], alpha=0.05
        )
        held += TESTS["betting"](pairs[0], 0.02).p <= 0.05
    assert held / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_the_certificate_is_recomputed_from_the_samples_that_were_evaluated(bench, tmp_path):
    scores = base_scores()
    (tmp_path / "model.onnx").write_bytes(b"model")
    digest = hashlib.sha256(b"model").hexdigest()
    small = contender("small", scores - 0.001)
    small = Contender("small", digest, small.read, stream=small.stream)
    result = early(bench, contender("base", scores), small)
    save_certification(result, tmp_path, ["model.onnx"])
    assert verify(tmp_path).verdict is Verdict.VERIFIED
    assert load_outcomes(tmp_path / "outcomes.npz")[0].walked
    text = (tmp_path / "certificate.json").read_text()
    assert Certificate.from_json(text).method.kind == "anytime"


def test_the_seal_streams_in_a_drawn_order_and_only_while_it_is_open(bench):
    seal, inputs = bench.seal, torch.arange(2000.0)[:, None] / 2000
    bench.split.inputs = inputs
    stream = seal.stream(lambda arrays: arrays, OVERLAP, batch=PART)
    with pytest.raises(CertificateError, match="sealed"):
        next(stream())
    with seal.opened("small", "small"):
        walked = np.concatenate([part["overlap"] for part in stream()])
    np.testing.assert_array_equal(np.sort(walked), inputs[:, 0].double().numpy())
    assert abs(np.corrcoef(walked, np.arange(2000))[0, 1]) < 0.2


def test_early_stopping_says_where_it_does_not_apply(bench):
    scores = base_scores()
    seal, pair = bench.seal, [contender("small", scores)]
    grouped = Demand(OVERLAP, 0.02, "late", lambda target: target == 1)
    whole = Demand(Metric("f1", value=lambda o, t: 0.0), 0.02)
    for demand, message in ((grouped, "is asked for a subgroup"), (whole, "f1 has none")):
        with pytest.raises(ArgumentError, match=message):
            certify_all(contender("base", scores), pair, seal=seal, demands=[demand], early_stop=True)
    with pytest.raises(ArgumentError, match="old cannot"):
        early(bench, contender("base", scores), Contender("old", "old", lambda: scores))


def test_walks_over_different_samples_are_refused():
    longer, shorter = Walk(parts(np.ones(300))), Walk(parts(np.ones(200)))
    with pytest.raises(DataError, match="different samples"):
        walk(longer, shorter, [Demand(OVERLAP, 0.001)], alpha=1e-9)
