"""Certification of a frozen list of finalists: fixed-sequence testing at full level, safest first."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from tersor.certification.certificate import Certificate, Claim, Decision, Method, Part, Setting, Speedup
from tersor.certification.demand import Demand
from tersor.certification.early import Walk, check_early, walk
from tersor.certification.evidence.bound import upper_bound
from tersor.certification.evidence.outcomes import Outcomes, PairedTest, Pairs
from tersor.certification.evidence.registry import TESTS, fitting_test, smallest_p, values_shown
from tersor.certification.ledger import Attempt
from tersor.certification.platform import Platform, this_platform
from tersor.certification.seal import Seal
from tersor.errors import ArgumentError, DataError
from tersor.loading.metric import Metric

#: Longest list of finalists.
MOST_FINALISTS = 8

Rows: TypeAlias = np.ndarray | Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Contender:
    """An exported file that takes part: the base, or a finalist.

    Attributes:
        name: shown in the certificate, usually the file name.
        sha256: hash of the file.
        read: evaluates the file on the sealed samples, called at most once and only when its turn comes. Returns the
            metric's score of each sample; for a metric without scores the outputs, first axis the samples. With
            several metrics, a mapping from their names. `Seal.reader` makes one from an opened artefact.
        speedup: measured speed-up over the base, to be shown beside the claim.
        runtime: the runtime of this file, where it is not that of the setting.
        stream: evaluates the file part by part, in an order that does not depend on it; needed by `early_stop` alone,
            which then calls it in place of `read`. `Seal.stream` makes one.
    """

    name: str
    sha256: str
    read: Callable[[], Rows]
    speedup: Speedup | None = None
    runtime: str = ""
    stream: Callable[[], Iterator[Mapping[str, np.ndarray]]] | None = None


@dataclass(frozen=True, slots=True)
class Certification:
    """The result of one attempt.

    Attributes:
        certificates: one for each finalist, in the frozen order.
        chosen: index of the boldest finalist that holds; None if none does.
        outcomes: what the claims of the finalists that hold rest on, one entry a demand, by index of the finalist.
        seal: the seal that was used, with its ledger.
    """

    certificates: tuple[Certificate, ...]
    chosen: int | None
    outcomes: dict[int, tuple[Outcomes, ...]] = field(repr=False)
    seal: Seal = field(repr=False)

    @property
    def certificate(self) -> Certificate:
        """The certificate of the boldest finalist that holds, or the first refusal."""
        return self.certificates[self.chosen or 0]


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
    demands = (Demand(metric, margin),)
    return certify_all(base, finalists, seal=seal, demands=demands, confidence=confidence, setting=setting)


def certify_all(
    base: Contender,
    finalists: Sequence[Contender],
    *,
    seal: Seal,
    demands: Sequence[Demand],
    confidence: float = 0.95,
    setting: Setting | None = None,
    early_stop: bool = False,
) -> Certification:
    """Like `certify`, with several demands that must all hold: metrics, subgroups, or both.

    Each demand is tested at the full level, without a correction, because a finalist passes only if it meets every
    one. The first demand is the main claim of the certificate; the others follow in `Certificate.also`.

    Args:
        base: as for `certify`.
        finalists: as for `certify`.
        seal: as for `certify`.
        demands: what must hold.
        confidence: as for `certify`.
        setting: as for `certify`.
        early_stop: evaluate every contender part by part, only until the decision, by the betting test. For scores
            that are not just right or wrong nothing is lost by it; for right or wrong the exact test on all samples
            shows smaller margins, so this is for files that take long to evaluate.

    Raises:
        ArgumentError: as `certify`, if there is no demand, or if early stopping does not apply to one.
        DataError: as `certify`, or if a subgroup has no sample.
        CertificateError: if the ledger was edited.
    """
    _check_request(finalists, demands, confidence)
    if early_stop:
        _check_streams((base, *finalists), demands)
    setting = setting or Setting()
    case = _Case(
        base,
        tuple(finalists),
        seal,
        tuple(demands),
        confidence,
        setting,
        this_platform(setting.runtime),
        early_stop,
    )
    attempt, is_new = case.attempt()
    certificates = case.blank(attempt)
    barrier = case.barrier(attempt)
    if barrier is not None:
        return Certification(tuple(replace(c, decision=barrier) for c in certificates), None, {}, seal)
    if is_new:
        case.record(attempt)
    return _run_sequence(case, attempt, certificates)


@dataclass(frozen=True, slots=True)
class _Case:
    """The question of one attempt."""

    base: Contender
    finalists: tuple[Contender, ...]
    seal: Seal
    demands: tuple[Demand, ...]
    confidence: float
    setting: Setting
    machine: Platform
    early_stop: bool

    @property
    def question(self) -> dict[str, Any]:
        early = {"early_stop": True} if self.early_stop else {}
        return {
            **early,
            "data_sha256": self.seal.data_sha256,
            "base_sha256": self.base.sha256,
            "finalists": [finalist.sha256 for finalist in self.finalists],
            "demands": [[demand.metric.name, demand.margin, demand.group] for demand in self.demands],
            "confidence": self.confidence,
            "setting": asdict(self.setting),
            "runtimes": [finalist.runtime for finalist in self.finalists],
            "machine": [*self.machine.features, self.machine.system, self.machine.runtime_version],
        }

    def attempt(self) -> tuple[Attempt, bool]:
        """Return the attempt, and whether it is new: the same question again is answered from the same budget."""
        again = self.seal.ledger.same_attempt(self.question)
        if again is not None:
            return again, False
        alpha = self.claim(self.demands[0]).alpha
        return self.seal.ledger.next_attempt(self.seal.data_sha256, alpha), True

    def record(self, attempt: Attempt) -> None:
        tests = [self._test(demand) for demand in self.demands]
        shown = math.prod(values_shown(test, len(self.seal), len(self.finalists)) for test in tests)
        budget = {"number": attempt.number, "transcripts": attempt.transcripts, "alpha": attempt.alpha}
        self.seal.ledger.append("attempt", **self.question, **budget, values_shown=shown)

    def barrier(self, attempt: Attempt) -> Decision | None:
        """Return why the data need not be opened at all, or None."""
        if not attempt.open:
            return Decision.SPENT
        whole = [demand for demand in self.demands if demand.members is None]
        tests = [self._test(demand) for demand in whole]
        best = [
            smallest_p(t, len(self.seal), d.margin, span=d.span) for t, d in zip(tests, whole, strict=True)
        ]
        if all(p <= attempt.alpha for p in best):
            return None
        return Decision.TOO_FEW_SAMPLES if attempt.number == 1 else Decision.SPENT

    def blank(self, attempt: Attempt) -> list[Certificate]:
        """Return a certificate for each finalist that claims nothing yet."""
        main, *others = (self._part(demand) for demand in self.demands)
        return [
            Certificate(
                decision=Decision.NOT_TESTED,
                name=finalist.name,
                claim=main.claim,
                method=main.method,
                also=tuple(others),
                attempt=attempt,
                samples=len(self.seal),
                position=position,
                finalists=tuple(f.sha256 for f in self.finalists),
                base_sha256=self.base.sha256,
                artefact_sha256=finalist.sha256,
                data_sha256=self.seal.data_sha256,
                setting=replace(self.setting, runtime=finalist.runtime or self.setting.runtime),
                machine=this_platform(finalist.runtime) if finalist.runtime else self.machine,
                speedup=finalist.speedup,
            )
            for position, finalist in enumerate(self.finalists)
        ]

    def _part(self, demand: Demand) -> Part:
        test = self._test(demand)
        return Part(self.claim(demand), Method(test.name, test.version, test.kind))

    def claim(self, demand: Demand) -> Claim:
        """Return what is to be shown of a demand."""
        return demand.claim(self.confidence, self.seal.labelled, self.seal.drawn)

    def _test(self, demand: Demand) -> PairedTest:
        return TESTS["betting"] if self.early_stop else demand.likely_test(self.seal.labelled)

    def read(self, contender: Contender) -> dict[str, np.ndarray]:
        """Evaluate a contender and return its rows by name of the metric."""
        with self.seal.opened(contender.name, contender.sha256):
            given = contender.read()
        named = given if isinstance(given, Mapping) else {self.demands[0].metric.name: given}
        rows = {name: np.asarray(values) for name, values in named.items()}
        for demand in self.demands:
            found = len(rows.get(demand.metric.name, ()))
            if found != len(self.seal):
                raise DataError(
                    f"{contender.name} was evaluated on {found} of {len(self.seal)} certification samples for "
                    f"{demand.metric.name}. A certificate needs all of them, in their order."
                )
        return rows

    def targets(self) -> Tensor | None:
        """Return the targets if a demand cannot do without them."""
        if not any(demand.needs_targets for demand in self.demands):
            return None
        with self.seal.opened("targets", ""):
            return self.seal.targets()


def _run_sequence(case: _Case, attempt: Attempt, certificates: list[Certificate]) -> Certification:
    held: dict[int, tuple[Outcomes, ...]] = {}
    with closing(_early(case, attempt) if case.early_stop else _whole(case)) as outcomes:
        for index, seen in enumerate(outcomes):
            parts = [_judged(case, demand, one) for demand, one in zip(case.demands, seen, strict=True)]
            if any(part.evidence is None or part.evidence.p > attempt.alpha for part in parts):
                methods = [part.method for part in parts]
                certificates[index] = _with_methods(certificates[index], methods)
                break
            held[index] = seen
            certificates[index] = _with_numbers(certificates[index], case, parts, seen[0])
    case.seal.ledger.append(
        "outcome", data_sha256=case.seal.data_sha256, number=attempt.number, passed=len(held)
    )
    return Certification(tuple(certificates), len(held) - 1 if held else None, held, case.seal)


def _whole(case: _Case) -> Generator[tuple[Outcomes, ...]]:
    """Yield the outcomes of one finalist after the other, each on all samples."""
    target, reference = case.targets(), case.read(case.base)
    for finalist in case.finalists:
        rows = case.read(finalist)
        yield tuple(d.outcomes(reference[d.metric.name], rows[d.metric.name], target) for d in case.demands)


def _early(case: _Case, attempt: Attempt) -> Generator[tuple[Outcomes, ...]]:
    """Yield the outcomes of one finalist after the other, each on as many samples as it takes."""
    assert case.base.stream is not None, "checked before"
    with case.seal.opened(case.base.name, case.base.sha256):
        reference = Walk(case.base.stream())
        for finalist in case.finalists:
            assert finalist.stream is not None, "checked before"
            with case.seal.opened(finalist.name, finalist.sha256):
                yield walk(reference, Walk(finalist.stream()), case.demands, alpha=attempt.alpha)


def _judged(case: _Case, demand: Demand, outcomes: Outcomes) -> Part:
    test = fitting_test(outcomes, labelled=case.seal.labelled)
    evidence = test(outcomes, demand.margin)
    return Part(case.claim(demand), Method(test.name, test.version, test.kind), evidence)


def _with_methods(certificate: Certificate, methods: list[Method]) -> Certificate:
    also = tuple(
        replace(part, method=method) for part, method in zip(certificate.also, methods[1:], strict=True)
    )
    return replace(certificate, decision=Decision.REFUSED, method=methods[0], also=also)


def _with_numbers(
    certificate: Certificate,
    case: _Case,
    parts: list[Part],
    seen: Outcomes,
) -> Certificate:
    main, demand = parts[0], case.demands[0]
    level = certificate.attempt.alpha / len(case.finalists)
    return replace(
        certificate,
        decision=Decision.HOLDS,
        method=main.method,
        evidence=main.evidence,
        also=tuple(parts[1:]),
        bound=upper_bound(TESTS[main.method.name], seen, level, span=demand.span),
        base_quality=_base_quality(demand, seen, len(case.seal)),
    )


def _base_quality(demand: Demand, seen: Outcomes, samples: int) -> float | None:
    """Return the metric of the base, if all samples were scored one by one."""
    if not isinstance(seen, Pairs) or demand.members is not None or len(seen) != samples:
        return None
    # A metric where lower is better is the negative of its mean score.
    sign = 1.0 if demand.metric.higher_is_better else -1.0
    return sign * float(np.mean(seen.base))


def _check_streams(contenders: Sequence[Contender], demands: Sequence[Demand]) -> None:
    check_early(demands)
    missing = [contender.name for contender in contenders if contender.stream is None]
    if missing:
        raise ArgumentError(
            f"Early stopping evaluates part by part, and {', '.join(missing)} cannot. "
            "Give each contender a `stream`: `seal.stream(session, metric)`."
        )


def _check_request(finalists: Sequence[Contender], demands: Sequence[Demand], confidence: float) -> None:
    if not demands:
        raise ArgumentError("There is nothing to certify. Give at least one `Demand(metric, margin)`.")
    if not 0.5 <= confidence < 1:
        raise ArgumentError(f"`confidence` must be in [0.5, 1), got {confidence!r}. 0.95 is usual.")
    if not 1 <= len(finalists) <= MOST_FINALISTS:
        raise ArgumentError(
            f"Certification takes 1 to {MOST_FINALISTS} finalists, got {len(finalists)}. "
            "Choose them on the search split."
        )
    if len({(finalist.sha256, finalist.runtime) for finalist in finalists}) < len(finalists):
        raise ArgumentError("Two finalists are the same file in the same runtime. Give each once.")
