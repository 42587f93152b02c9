"""Certification of a frozen list of finalists: fixed-sequence testing at full level, safest first."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from tersor._check import positive
from tersor.certification.certificate import Certificate, Claim, Decision, Method, Setting, Speedup
from tersor.certification.evidence.bootstrap import resample
from tersor.certification.evidence.bound import upper_bound
from tersor.certification.evidence.outcomes import Outcomes, PairedTest, Pairs
from tersor.certification.evidence.registry import TESTS, fitting_test, smallest_p, values_shown
from tersor.certification.ledger import Attempt
from tersor.certification.machine import this_machine
from tersor.certification.seal import Seal
from tersor.errors import ArgumentError, DataError
from tersor.loading.metric import Metric

#: Longest list of finalists.
MOST_FINALISTS = 8


@dataclass(frozen=True, slots=True)
class Contender:
    """An exported file that takes part: the base, or a finalist.

    Attributes:
        name: shown in the certificate, usually the file name.
        sha256: hash of the file.
        read: evaluates the file on the sealed samples, called at most once and only when its turn comes. Returns the
            metric's score of each sample; for a metric without scores the outputs, first axis the samples.
            `Seal.reader` makes one from an opened artefact.
        speedup: measured speed-up over the base, to be shown beside the claim.
    """

    name: str
    sha256: str
    read: Callable[[], np.ndarray]
    speedup: Speedup | None = None


@dataclass(frozen=True, slots=True)
class Certification:
    """The result of one attempt.

    Attributes:
        certificates: one for each finalist, in the frozen order.
        chosen: index of the boldest finalist that holds; None if none does.
        outcomes: what the certified finalists' claims rest on, by index.
        seal: the seal that was used, with its ledger.
    """

    certificates: tuple[Certificate, ...]
    chosen: int | None
    outcomes: dict[int, Outcomes] = field(repr=False)
    seal: Seal = field(repr=False)

    @property
    def certificate(self) -> Certificate:
        """The certificate of the boldest finalist that holds, or the first refusal."""
        return self.certificates[self.chosen or 0]


@dataclass(frozen=True, slots=True)
class _Case:
    """The question of one attempt, and how a contender's answer is turned into outcomes."""

    claim: Claim
    metric: Metric
    seal: Seal

    def read(self, contender: Contender) -> np.ndarray:
        with self.seal.opened(contender.name, contender.sha256):
            rows = np.asarray(contender.read())
        if len(rows) != len(self.seal):
            raise DataError(
                f"{contender.name} was evaluated on {len(rows)} of {len(self.seal)} certification samples. "
                "A certificate needs all of them, in their order."
            )
        return rows

    def outcomes(self, base: np.ndarray, candidate: np.ndarray) -> Outcomes:
        sign = 1.0 if self.metric.higher_is_better else -1.0
        if self.metric.scores is not None:
            low, high = sorted(sign * bound for bound in self.metric.bounds)
            return Pairs(sign * base, sign * candidate, low, high)
        with self.seal.opened("targets", ""):
            target = self.seal.targets()
        first, second, value = torch.from_numpy(base), torch.from_numpy(candidate), self.metric.value

        def drop(index: np.ndarray) -> float:
            chosen = torch.from_numpy(index)
            return sign * (value(first[chosen], target[chosen]) - value(second[chosen], target[chosen]))

        return resample(drop, len(base))

    @property
    def span(self) -> float:
        """Largest drop that the bounds of the metric allow; 1 where they do not say."""
        low, high = self.metric.bounds
        return high - low if math.isfinite(high - low) else 1.0

    def likely_test(self) -> PairedTest:
        """Return the strongest test that could apply, before any score is known."""
        decomposes = self.metric.scores is not None and math.isfinite(
            self.metric.bounds[1] - self.metric.bounds[0]
        )
        if not decomposes:
            return TESTS["bca"]
        return (
            TESTS["exact score" if self.claim.labelled else "agreement"]
            if self.span == 1
            else TESTS["betting"]
        )


def certify(
    base: Contender,
    finalists: Sequence[Contender],
    *,
    seal: Seal,
    metric: Metric,
    margin: float,
    confidence: float = 0.95,
    setting: Setting | None = None,
) -> Certification:
    """Test frozen finalists on the sealed data, from the safest to the boldest, and stop at the first failure.

    Each finalist is tested at the full level of the attempt; because the order was fixed without the sealed data, the
    probability that *any* false claim comes out is at most that level, whatever search chose the finalists. Levels
    of repeated attempts come from the ledger. A finalist is evaluated only when its turn comes.

    The test follows from the outcomes: exact for right or wrong, betting for bounded scores, the asymptotic
    bootstrap for metrics of a whole set and for unbounded scores, the exact test on disagreement without labels.

    Args:
        base: the original, exported in the runtime of the claim.
        finalists: at most eight, the safest (largest expected distance from the margin) first.
        seal: the certification data behind its lock.
        metric: how quality is measured.
        margin: largest drop that is accepted, in the unit of the metric: one point of accuracy is 0.01.
        confidence: confidence of the claim over all attempts on the same data.
        setting: how the files are run.

    Returns:
        A certificate for each finalist, and the index of the boldest one that holds. A refusal is a result.

    Raises:
        ArgumentError: if the margin, the confidence or the list of finalists cannot be used.
        DataError: if scores are missing, not finite, or outside the bounds of the metric.
        CertificateError: if the ledger was edited.

    Source:
        Angelopoulos et al., Learn then Test, Annals of Applied Statistics 2025, section 2.2 (fixed-sequence testing);
        Laufer-Goldshtein et al., Efficiently Controlling Multiple Risks with Pareto Testing, ICLR 2023.
    """
    _check_request(finalists, metric, margin, confidence)
    case = _Case(Claim(metric.name, margin, confidence, metric.higher_is_better, seal.labelled), metric, seal)
    attempt, is_new = _attempt(case, base, finalists)
    setting = setting or Setting()
    blank = _blank(case, attempt, base, setting)
    certificates = [
        replace(
            blank,
            name=f.name,
            artefact_sha256=f.sha256,
            speedup=f.speedup,
            position=i,
            finalists=_hashes(finalists),
        )
        for i, f in enumerate(finalists)
    ]
    barrier = _barrier(case, attempt)
    if barrier is not None:
        return Certification(tuple(replace(c, decision=barrier) for c in certificates), None, {}, seal)
    if is_new:
        budget = {"number": attempt.number, "transcripts": attempt.transcripts, "alpha": attempt.alpha}
        shown = values_shown(case.likely_test(), len(seal), len(finalists))
        seal.ledger.append("attempt", **_question(case, base, finalists), **budget, values_shown=shown)
    return _run_sequence(case, attempt, base, finalists, certificates)


def _run_sequence(
    case: _Case,
    attempt: Attempt,
    base: Contender,
    finalists: Sequence[Contender],
    certificates: list[Certificate],
) -> Certification:
    reference = case.read(base)
    outcomes: dict[int, Outcomes] = {}
    for index, finalist in enumerate(finalists):
        seen = case.outcomes(reference, case.read(finalist))
        test = fitting_test(seen, labelled=case.claim.labelled)
        method = Method(test.name, test.version, test.kind)
        if test(seen, case.claim.margin).p > attempt.alpha:
            certificates[index] = replace(certificates[index], decision=Decision.REFUSED, method=method)
            break
        outcomes[index] = seen
        certificates[index] = replace(certificates[index], decision=Decision.HOLDS, method=method)
    passed = len(outcomes)
    case.seal.ledger.append(
        "outcome", data_sha256=case.seal.data_sha256, number=attempt.number, passed=passed
    )
    if not passed:
        return Certification(tuple(certificates), None, {}, case.seal)
    shown = [
        _with_numbers(c, case, reference, outcomes[i]) if c.holds else c for i, c in enumerate(certificates)
    ]
    return Certification(tuple(shown), passed - 1, outcomes, case.seal)


def _with_numbers(
    certificate: Certificate, case: _Case, reference: np.ndarray, seen: Outcomes
) -> Certificate:
    test = TESTS[certificate.method.name]
    level = certificate.attempt.alpha / len(certificate.finalists)
    return replace(
        certificate,
        evidence=test(seen, case.claim.margin),
        bound=upper_bound(test, seen, level, span=case.span),
        base_quality=float(np.mean(reference)) if case.metric.scores is not None else None,
    )


def _barrier(case: _Case, attempt: Attempt) -> Decision | None:
    """Return why the data need not be opened at all, or None."""
    if not attempt.open:
        return Decision.SPENT
    if smallest_p(case.likely_test(), len(case.seal), case.claim.margin, span=case.span) <= attempt.alpha:
        return None
    return Decision.TOO_FEW_SAMPLES if attempt.number == 1 else Decision.SPENT


def _attempt(case: _Case, base: Contender, finalists: Sequence[Contender]) -> tuple[Attempt, bool]:
    """Return the attempt, and whether it is a new one: the same question again is answered from the same budget."""
    ledger = case.seal.ledger
    again = ledger.same_attempt(_question(case, base, finalists))
    if again is not None:
        return again, False
    return ledger.next_attempt(case.seal.data_sha256, case.claim.alpha), True


def _question(case: _Case, base: Contender, finalists: Sequence[Contender]) -> dict:
    claim = case.claim
    return {
        "data_sha256": case.seal.data_sha256,
        "base_sha256": base.sha256,
        "finalists": list(_hashes(finalists)),
        "metric": claim.metric,
        "margin": claim.margin,
        "confidence": claim.confidence,
    }


def _blank(case: _Case, attempt: Attempt, base: Contender, setting: Setting) -> Certificate:
    test = case.likely_test()
    return Certificate(
        decision=Decision.NOT_TESTED,
        name="",
        claim=case.claim,
        method=Method(test.name, test.version, test.kind),
        attempt=attempt,
        samples=len(case.seal),
        position=0,
        finalists=(),
        base_sha256=base.sha256,
        artefact_sha256="",
        data_sha256=case.seal.data_sha256,
        setting=setting,
        machine=this_machine(setting.runtime),
    )


def _hashes(finalists: Sequence[Contender]) -> tuple[str, ...]:
    return tuple(finalist.sha256 for finalist in finalists)


def _check_request(finalists: Sequence[Contender], metric: Metric, margin: float, confidence: float) -> None:
    positive("margin", margin)
    low, high = metric.bounds
    if margin >= high - low:
        raise ArgumentError(
            f"A margin of {margin:g} accepts anything: {metric.name} lies in [{low:g}, {high:g}]. "
            "Margins are in the unit of the metric; one point of accuracy is 0.01."
        )
    if not 0.5 <= confidence < 1:
        raise ArgumentError(f"`confidence` must be in [0.5, 1), got {confidence!r}. 0.95 is usual.")
    if not 1 <= len(finalists) <= MOST_FINALISTS:
        raise ArgumentError(
            f"Certification takes 1 to {MOST_FINALISTS} finalists, got {len(finalists)}. "
            "Choose them on the search split."
        )
    if len({finalist.sha256 for finalist in finalists}) < len(finalists):
        raise ArgumentError("Two finalists are the same file. Give each file once.")
