"""Several metrics, subgroups, metrics of a whole set, and data without labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tersor.certification.certify import Contender, certify_all
from tersor.certification.demand import Demand
from tersor.certification.seal import Seal
from tersor.certification.store import save_certification
from tersor.certification.verify import Verdict, verify
from tersor.errors import ArgumentError, DataError
from tersor.loading.metric import Metric
from tersor.loading.metrics import named_metric
from tersor.loading.setting import Setting

ACCURACY = Metric("accuracy", value=lambda o, t: 0.0, scores=lambda o, t: o)
QUALITY = Metric("quality", value=lambda o, t: 0.0, scores=lambda o, t: o)


@pytest.fixture
def grouped(bench):
    """A bench whose targets are 1 on the last 500 samples."""
    bench.split.target[1500:] = 1
    return bench


def certify(bench, demands, **rows):
    contenders = [Contender(name, name, lambda values=values: values) for name, values in rows.items()]
    return certify_all(contenders[0], contenders[1:], seal=bench.seal, demands=demands)


def lost(*samples) -> np.ndarray:
    scores = np.ones(2000)
    scores[list(samples)] = 0
    return scores


LATE = Demand(ACCURACY, 0.02, "late samples", lambda target: target == 1)


def test_a_loss_in_a_subgroup_refuses_what_the_mean_would_hide(grouped):
    result = certify(grouped, [Demand(ACCURACY, 0.02)], base=lost(), small=lost(*range(1980, 2000)))
    assert result.chosen == 0


def test_all_demands_must_hold(grouped):
    demands = [Demand(ACCURACY, 0.02), LATE]
    result = certify(
        grouped, demands, base=lost(), even=lost(*range(0, 2000, 150)), late=lost(*range(1980, 2000))
    )
    assert [c.decision.name for c in result.certificates] == ["HOLDS", "REFUSED"]
    (part,) = result.certificate.also
    assert (part.claim.group, part.evidence.n) == ("late samples", 500)
    assert "accuracy on late samples within 0.02" in result.certificate.words()


def test_an_empty_subgroup_is_said(bench):
    with pytest.raises(DataError, match="No certification sample belongs to 'late samples'"):
        certify(bench, [Demand(ACCURACY, 0.02), LATE], base=lost(), small=lost())


def test_several_metrics_are_read_by_name_and_verified_from_what_is_stored(grouped, tmp_path):
    demands = [Demand(ACCURACY, 0.02), Demand(QUALITY, 0.05), LATE]
    base = {"accuracy": lost(), "quality": np.full(2000, 0.7)}
    good = {"accuracy": lost(3), "quality": np.full(2000, 0.69)}
    poor = {"accuracy": lost(3), "quality": np.full(2000, 0.6)}
    result = certify(grouped, demands, base=base, good=good, poor=poor)
    assert [c.decision.name for c in result.certificates] == ["HOLDS", "REFUSED"]
    (tmp_path / "model").write_bytes(b"good")
    with pytest.raises(Exception, match="Copy the exported file"):
        save_certification(result, tmp_path, ["model"])


def test_stored_outcomes_of_all_demands_are_recomputed(grouped, tmp_path):
    import hashlib

    (tmp_path / "model").write_bytes(b"good")
    sha = hashlib.sha256(b"good").hexdigest()
    rows = {"accuracy": lost(3), "quality": np.full(2000, 0.7)}
    contenders = [Contender("base", "0", lambda: rows), Contender("model", sha, lambda: rows)]
    demands = [Demand(ACCURACY, 0.02), Demand(QUALITY, 0.05), LATE]
    result = certify_all(contenders[0], contenders[1:], seal=grouped.seal, demands=demands)
    save_certification(result, tmp_path, ["model"])
    assert verify(tmp_path).verdict is Verdict.VERIFIED
    assert {part.method.name for part in result.certificate.also} == {"betting", "exact score"}


def test_a_metric_of_the_whole_set_is_certified_by_the_bootstrap_and_says_so(bench, tmp_path):
    rng = np.random.default_rng(0)
    bench.split.target = torch.from_numpy(rng.normal(size=2000))
    target = bench.split.target.numpy()
    correlation = Metric("correlation", value=lambda o, t: float(np.corrcoef(o.numpy(), t.numpy())[0, 1]))
    near, far = (np.array(target + rng.normal(0, s, 2000)) for s in (0.3, 1.0))
    result = certify(
        bench,
        [Demand(correlation, 0.02, draws=600)],
        base=target + rng.normal(0, 0.3, 2000),
        near=near,
        far=far,
    )
    assert [c.decision.name for c in result.certificates] == ["HOLDS", "REFUSED"]
    certificate = result.certificate
    assert certificate.method.kind == "asymptotic"
    assert certificate.words().startswith("ASYMPTOTIC")
    assert certificate.evidence.b is None


def test_without_labels_the_claim_is_about_agreement_and_says_so_first(bench):
    bench.seal = Seal(bench.split, bench.ledger, labelled=False)
    result = certify(
        bench, [Demand(ACCURACY, 0.02)], base=lost(5), close=lost(*range(10)), other=lost(*range(60))
    )
    assert [c.decision.name for c in result.certificates] == ["HOLDS", "REFUSED"]
    assert result.certificate.method.name == "agreement"
    assert result.certificate.words().startswith("NO LABELS")
    assert result.certificate.evidence.b == 10


def test_a_missing_metric_is_named(bench):
    with pytest.raises(DataError, match="0 of 2000 certification samples for quality"):
        certify(bench, [Demand(ACCURACY, 0.02), Demand(QUALITY, 0.02)], base=lost(), small=lost())


def test_a_demand_that_accepts_anything_is_refused():
    with pytest.raises(ArgumentError, match="accepts anything"):
        Demand(ACCURACY, 1.0)


def test_no_demand_is_refused(bench):
    with pytest.raises(ArgumentError, match="nothing to certify"):
        certify(bench, [], base=lost(), small=lost())


def test_dependent_samples_count_as_one_unit(bench):
    units = np.arange(2000) // 4
    result = certify(bench, [Demand(ACCURACY, 0.05, units=units)], base=lost(), small=lost(*range(4)))
    assert result.certificate.evidence.n == 500
    assert result.certificate.evidence.estimate == pytest.approx(1 / 500)
    assert result.certificate.method.name == "exact score"


def test_units_must_be_given_for_every_sample_and_need_scores(bench):
    with pytest.raises(DataError, match="Units are given for 7 samples"):
        certify(bench, [Demand(ACCURACY, 0.05, units=np.arange(7))], base=lost(), small=lost())
    with pytest.raises(ArgumentError, match="no score for each sample"):
        Demand(Metric("auc", value=lambda o, t: 0.0), 0.05, units=np.arange(7))


@pytest.mark.parametrize(
    ("name", "setting", "shape"),
    [
        ("perplexity", Setting("language", (7, 9), 9, class_axis=-1, shifted=True), (60, 7, 9)),
        ("rmse", Setting("regression", (3,)), (60, 3)),
    ],
)
def test_redrawn_sums_of_a_metric_say_what_redrawn_outputs_say(name, setting, shape):
    metric = named_metric(name, setting)
    draw = torch.Generator().manual_seed(0)
    base, candidate = (torch.randn(shape, generator=draw).numpy() for _ in range(2))
    target = torch.randn(shape, generator=draw)
    if name == "perplexity":
        target = torch.randint(0, 9, shape[:2], generator=draw)
        target[torch.rand(shape[:2], generator=draw) < 0.3] = -100
    by_sums = Demand(metric, 0.1, draws=40).outcomes(base, candidate, target)
    by_outputs = Demand(replace(metric, recount=None), 0.1, draws=40).outcomes(base, candidate, target)
    assert by_sums.estimate == pytest.approx(by_outputs.estimate)
    np.testing.assert_allclose(by_sums.replicates, by_outputs.replicates, rtol=1e-9)
    np.testing.assert_allclose(by_sums.jackknife, by_outputs.jackknife, rtol=1e-9)
