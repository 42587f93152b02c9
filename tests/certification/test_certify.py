"""Fixed-sequence certification: who is read, who is claimed, and what a refusal shows."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tersor.certification.certificate import Certificate, Decision, Setting, Speedup
from tersor.certification.evidence.exact import exact_p
from tersor.certification.ledger import Continuation, attempt_alpha
from tersor.errors import ArgumentError, CertificateError, DataError
from tersor.loading.metric import Metric


def decisions(certification):
    return [certificate.decision.name for certificate in certification.certificates]


def test_the_boldest_finalist_before_the_first_failure_is_chosen(bench):
    finalists = [
        bench.contender("a", 4, 4),
        bench.contender("b", 20, 10),
        bench.contender("c", 90, 10),
        bench.contender("d"),
    ]
    result = bench.certify(finalists)
    assert decisions(result) == ["HOLDS", "HOLDS", "REFUSED", "NOT_TESTED"]
    assert result.chosen == 1
    assert result.certificate.name == "b"
    assert bench.read == ["base", "a", "b", "c"]


def test_a_certificate_holds_the_numbers_of_the_exact_test(bench):
    certificate = bench.certify([bench.contender("b", 20, 10)]).certificate
    evidence = certificate.evidence
    assert (evidence.n, evidence.b, evidence.c) == (2000, 20, 10)
    assert evidence.p == exact_p(20, 10, 2000, 0.02)
    assert evidence.disagreement == 0.015
    assert certificate.base_quality == 0.9
    assert certificate.attempt.alpha == attempt_alpha(0.05, 1)
    assert 0.005 < certificate.bound <= 0.02


def test_the_bound_pays_for_the_number_of_finalists(make_bench):
    one, many = make_bench(), make_bench()
    alone = one.certify([one.contender("b", 20, 10)])
    among = many.certify([many.contender("b", 20, 10), *(many.contender(f"{i}", 100) for i in range(7))])
    assert among.certificate.bound > alone.certificate.bound


def test_a_refusal_shows_no_number_of_the_sealed_data(bench):
    certificate = bench.certify([bench.contender("c", 90, 10)]).certificate
    assert certificate.decision is Decision.REFUSED
    assert (certificate.evidence, certificate.bound, certificate.base_quality) == (None, None, None)
    assert "90" not in certificate.words()
    assert "No claim" in certificate.words()


def test_the_ledger_names_every_access_and_no_count(bench):
    bench.certify([bench.contender("a", 4, 4), bench.contender("c", 90, 10)])
    entries = bench.ledger.entries()
    assert [e["event"] for e in entries] == [
        "begin",
        "hash",
        "attempt",
        "access",
        "access",
        "access",
        "outcome",
    ]
    assert [e["reader"] for e in entries if e["event"] == "access"] == ["base", "a", "c"]
    assert entries[-1]["passed"] == 1


def test_the_attempt_is_written_before_anything_is_read(bench):
    def fails():
        raise RuntimeError("the file does not open")

    with pytest.raises(RuntimeError, match="does not open"):
        bench.certify([bench.scored("a", fails)])
    assert "attempt" in [e["event"] for e in bench.ledger.entries()]
    assert bench.certify([bench.contender("b", 1)]).certificate.attempt.number == 2


def test_the_level_is_that_of_the_attempt_and_not_the_whole_budget(bench):
    assert attempt_alpha(0.05, 1) < exact_p(37, 10, 2000, 0.02) < 0.05
    assert decisions(bench.certify([bench.contender("b", 37, 10)])) == ["REFUSED"]


def test_later_attempts_get_less(bench):
    numbers = []
    for lost in (90, 91, 92):
        attempt = bench.certify([bench.contender(f"c{lost}", lost, 10)]).certificate.attempt
        numbers.append((attempt.number, attempt.alpha))
    assert numbers == [(j, attempt_alpha(0.05, j)) for j in (1, 2, 3)]


def test_the_same_question_again_costs_nothing(bench):
    first = bench.certify([bench.contender("c", 90, 10)]).certificate
    assert bench.certify([bench.contender("c", 90, 10)]).certificate == first
    assert bench.certify([bench.contender("d", 91, 10)]).certificate.attempt.number == 2


def test_another_setting_is_another_question(bench):
    first = bench.certify([bench.contender("c", 90, 10)], setting=Setting(batch=1))
    second = bench.certify([bench.contender("c", 90, 10)], setting=Setting(batch=64))
    assert (first.certificate.attempt.number, second.certificate.attempt.number) == (1, 2)


def test_data_that_has_certified_a_model_is_spent(bench):
    assert bench.certify([bench.contender("a", 4, 4)]).chosen == 0
    again = bench.certify([bench.contender("b", 4, 4)])
    assert decisions(again) == ["SPENT"]
    assert "b" not in bench.read
    assert "new certification data" in again.certificate.words()


def test_going_on_after_a_certificate_is_charged_by_what_it_showed(make_bench):
    bench = make_bench(continuation=Continuation.ALWAYS)
    bench.certify([bench.contender("a", 4, 4)])
    attempt = bench.certify([bench.contender("b", 4, 4)], margin=0.5).certificate.attempt
    assert attempt.transcripts == 2 * (2001 * 2002 // 2) * 2001
    assert attempt.alpha == attempt_alpha(0.05, 2, attempt.transcripts)


def test_too_few_samples_are_refused_unread(make_bench):
    bench = make_bench(samples=100)
    result = bench.certify([bench.contender("a")], margin=0.01)
    assert decisions(result) == ["TOO_FEW_SAMPLES"]
    assert bench.read == []
    assert "attempt" not in [e["event"] for e in bench.ledger.entries()]


def test_sealed_data_cannot_be_read_outside_an_attempt(bench):
    with pytest.raises(CertificateError, match="sealed"):
        bench.seal.batches(10)
    with pytest.raises(CertificateError, match="sealed"):
        bench.seal.targets()
    seen = []
    bench.certify([bench.scored("a", lambda: seen.extend(bench.seal.batches(500)) or np.ones(2000))])
    assert len(seen) == 4
    with pytest.raises(CertificateError, match="sealed"):
        bench.seal.batches(10)


def test_other_data_have_another_hash(bench, make_bench):
    other = make_bench()
    other.split.inputs = other.split.inputs.clone()
    other.split.inputs[7, 1] += 1e-6
    assert other.seal.data_sha256 != bench.seal.data_sha256
    assert make_bench().seal.data_sha256 == bench.seal.data_sha256


def test_the_order_of_the_samples_does_not_make_other_data(bench, make_bench):
    other = make_bench()
    other.split.inputs = other.split.inputs.flip(0)
    assert other.seal.data_sha256 == bench.seal.data_sha256


def test_a_part_of_the_same_data_shares_its_budget(bench):
    bench.certify([bench.contender("c", 90, 10)])
    half = type(bench)(bench.folder, samples=1500)
    half.split.inputs = bench.split.inputs[300:1800]
    assert half.certify([half.contender("c", 90, 10)]).certificate.attempt.number == 2


def test_bounded_scores_are_certified_by_betting(bench):
    rng = np.random.default_rng(0)
    base = rng.random(2000)
    close = np.clip(base + rng.normal(0, 0.03, 2000), 0, 1)
    worse = np.clip(base - 0.1, 0, 1)
    result = bench.certify(
        [bench.scored("a", lambda: close), bench.scored("b", lambda: worse)],
        base=bench.scored("base", lambda: base),
    )
    assert decisions(result) == ["HOLDS", "REFUSED"]
    assert (result.certificate.method.name, result.certificate.method.kind) == ("betting", "anytime")


def test_an_error_is_certified_by_scores_that_are_its_negative(bench):
    error = Metric(
        "error", value=lambda o, t: 0.0, scores=lambda o, t: -o, bounds=(-4.0, 0.0), higher_is_better=False
    )
    base = np.full(2000, -1.0)
    contenders = [bench.scored("less", lambda: base + 0.5), bench.scored("more", lambda: base - 0.5)]
    result = bench.certify(contenders, base=bench.scored("base", lambda: base), metric=error, margin=0.1)
    assert decisions(result) == ["HOLDS", "REFUSED"]
    assert result.certificate.evidence.estimate == -0.5
    assert result.certificate.base_quality == 1.0
    assert "0.5 lower" in result.certificate.words()
    assert "at most 0.1 above" in result.certificate.words()


@pytest.mark.parametrize("margin", [0, -0.1, float("nan"), 1.0])
def test_margins_that_mean_nothing_are_refused(bench, margin):
    with pytest.raises(ArgumentError):
        bench.certify([bench.contender("a")], margin=margin)


def test_more_than_eight_finalists_are_refused(bench):
    with pytest.raises(ArgumentError, match="1 to 8 finalists, got 9"):
        bench.certify([bench.contender(str(i)) for i in range(9)])


def test_the_same_file_twice_is_refused(bench):
    with pytest.raises(ArgumentError, match="same file in the same runtime"):
        bench.certify([bench.contender("a"), bench.contender("a")])


def test_missing_scores_are_refused(bench):
    with pytest.raises(DataError, match="1999 of 2000"):
        bench.certify([bench.scored("a", lambda: np.ones(1999))])


def test_scores_that_are_not_numbers_are_refused(bench):
    with pytest.raises(DataError, match="candidate scores are not numbers"):
        bench.certify([bench.scored("a", lambda: np.full(2000, np.nan))])


def test_certificates_survive_json(bench):
    for certificate in bench.certify([bench.contender("a", 4, 4), bench.contender("c", 90)]).certificates:
        assert Certificate.from_json(certificate.to_json()) == certificate


def test_a_speedup_whose_interval_has_no_end_survives_json(bench):
    certificate = bench.certify([bench.contender("a", 4, 4)]).certificate
    certificate = replace(certificate, speedup=Speedup(1.1, 0.0, math.inf))
    assert Certificate.from_json(certificate.to_json()) == certificate


def test_text_that_is_no_certificate_is_refused(bench):
    text = bench.certify([bench.contender("a", 4, 4)]).certificate.to_json()
    with pytest.raises(CertificateError, match="samples"):
        Certificate.from_json(text.replace('"samples"', '"simples"'))
    with pytest.raises(CertificateError, match="decision"):
        Certificate.from_json(text.replace("HOLDS", "HELD"))
    with pytest.raises(CertificateError, match="not a certificate"):
        Certificate.from_json("{")
