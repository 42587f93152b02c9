"""The one meeting with the sealed data: is it large enough, and which of the frozen finalists hold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tersor.certification.certificate import Certificate, Decision, Setting
from tersor.certification.certify import Certification, Contender, certify
from tersor.certification.planner import outlook, samples_needed
from tersor.certification.seal import Seal
from tersor.errors import CertificateError, DataError
from tersor.exporting.artefact import Artefact
from tersor.loading.task import Task
from tersor.reporting.words import counted
from tersor.search.apart import opening_apart
from tersor.search.candidate import Candidate
from tersor.search.outcome import Fate
from tersor.search.run import EVALUATION_BATCH, Run


@dataclass(frozen=True)
class Sealed:
    """What became of the finalists.

    Attributes:
        certification: the result of the attempt; None if there was none.
        tested: the finalists with fates and certificates, in the frozen order.
    """

    certification: Certification | None
    tested: tuple[Candidate, ...]

    @property
    def passed(self) -> tuple[Candidate, ...]:
        """The finalists that hold, safest first; the last one does the least work."""
        return tuple(candidate for candidate in self.tested if candidate.fate is Fate.CERTIFIED)


#: Share of samples on which a compressed network usually answers differently; only used to word an error.
_LIKELY_DISAGREEMENT = 0.02
#: No finalist was good enough to open the data for.
NOT_TRIED = Sealed(None, ())


def check_samples(task: Task, confidence: float, margin: float, seal: Seal) -> None:
    """Refuse, before any work, a certification split that cannot certify anything.

    Args:
        task: its metric.
        confidence: of the certificate.
        margin: largest loss of quality, in the unit of the metric.
        seal: the certification samples behind their lock.

    Raises:
        CertificateError: if earlier attempts have used it up.
        DataError: if it could not show the margin even if the two models never differed, with the number that would.
    """
    attempt = seal.ledger.next_attempt(seal.data_sha256, 1 - confidence)
    if not attempt.open:
        raise CertificateError(
            f"A model has already been certified on these samples (attempt {attempt.number - 1} in the ledger), and "
            "what was shown then could steer this search. Give new certification samples; or start a new count with "
            "`--ledger NEW.jsonl`, and the guarantee covers only what comes after it."
        )
    alpha = attempt.alpha
    least = samples_needed(margin, 0.0, alpha=alpha)
    if task.metric.scores is not None and len(seal) < least:
        likely = samples_needed(margin, _LIKELY_DISAGREEMENT, alpha=alpha)
        raise DataError(
            f"{len(seal)} certification samples cannot show a drop of at most {margin:.4g}: it takes {least} even "
            f"if the two models never differ, and about {likely} when they differ on 2 in 100. Give more "
            "certification samples or allow a larger drop."
        )


def _say_outlook(run: Run, finalists: Sequence[Candidate], samples: int) -> None:
    """Say what can be expected, for the safest finalist, before the data is opened."""
    base, safest = run.base.quality, finalists[0].quality
    if base is None or safest is None or base.scores is None or safest.scores is None:
        return
    difference = (base.scores - safest.scores).double()
    q, drop = float((difference**2).mean()), max(0.0, run.drop(finalists[0]))
    run.say("certify", outlook(samples, run.margin, q, drop=drop).words())


def try_finalists(run: Run, finalists: Sequence[Candidate], seal: Seal) -> Sealed:
    """Freeze the list and test it on the sealed data, from the safest to the boldest.

    With several targets each finalist is a run of files, one a target, in the fixed sequence.
    """
    _say_outlook(run, finalists, len(seal))
    run.say("certify", f"{counted(len(finalists), 'finalist')} on {len(seal):,} sealed samples, safest first")
    setting = Setting(run.request.target, run.request.threads, EVALUATION_BATCH, seed=run.request.seed)
    assert run.base.artefact is not None
    certification = certify(
        _contender("original", run.base.artefact, run, seal),
        [_contender(candidate.name, file, run, seal) for candidate in finalists for file in candidate.files],
        seal=seal,
        metric=run.task.metric,
        margin=run.margin,
        confidence=run.request.confidence,
        setting=setting,
    )
    each, claims = len(run.request.targets), certification.certificates
    tested = tuple(
        _with_certificate(run, candidate, claims[each * place : each * (place + 1)])
        for place, candidate in enumerate(finalists)
    )
    return Sealed(certification, tested)


def _contender(name: str, artefact: Artefact, run: Run, seal: Seal) -> Contender:
    def read():
        with opening_apart(threads=run.request.threads) as opened:
            return seal.reader(opened(artefact), run.task.metric, batch=EVALUATION_BATCH)()

    runtime = "" if artefact.runtime == run.request.target else artefact.runtime
    return Contender(name, artefact.sha256, read, runtime=runtime)


def _with_certificate(run: Run, candidate: Candidate, claims: Sequence[Certificate]) -> Candidate:
    """Return `candidate` with its certificate: it holds if it does in every target, each tested at the full level."""
    fates = {Decision.HOLDS: Fate.CERTIFIED, Decision.REFUSED: Fate.REFUSED}
    worst = next((claim for claim in claims if not claim.holds), claims[0])
    fate = fates.get(worst.decision, Fate.UNTESTED)
    run.say("certify", f"{candidate.name}: {fate.value}")
    return replace(candidate, certificate=worst, fate=fate, reason=worst.decision.value)
