"""Recompute a certificate from what is stored beside it, and say whether it still stands, and where."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from tersor.certification.certificate import Certificate, Part
from tersor.certification.evidence.outcomes import Outcomes, Pairs
from tersor.certification.evidence.registry import TESTS
from tersor.certification.ledger import attempt_alpha, read_ledger
from tersor.certification.platform import this_platform
from tersor.certification.store import CERTIFICATE, LEDGER, OUTCOMES, hash_in, load_outcomes
from tersor.errors import CertificateError


class Verdict(Enum):
    """What verification found; the value says what to do."""

    VERIFIED = (
        "The certificate follows from the stored outcomes, and every file is the one that was certified."
    )
    OTHER_MACHINE = (
        "The certificate is sound, but was issued on another machine, where kernels may round differently. "
        "Evaluate the file here on the certification samples and pass the scores to check it for this machine."
    )
    NO_CLAIM = "The files are unchanged, but this certificate makes no claim."
    BROKEN = "Do not rely on this certificate."


@dataclass(frozen=True, slots=True)
class Verification:
    """What verification found.

    Attributes:
        verdict: the result.
        reasons: what was found, one sentence each.
        certificate: the certificate, if it could be read.
    """

    verdict: Verdict
    reasons: tuple[str, ...] = ()
    certificate: Certificate | None = None

    def words(self) -> str:
        """Return the result in one paragraph."""
        drawn = "" if self.certificate is None else self.certificate.claim.drawn
        about = (
            (f"It is about inputs drawn at random ({drawn}), and says nothing about real ones.",)
            if drawn
            else ()
        )
        return " ".join((*self.reasons, self.verdict.value, *about))


def verify(folder: str | Path, *, scores: np.ndarray | None = None) -> Verification:
    """Check a folder that `save_certification` wrote.

    Every file is hashed, the ledger's chain is followed, and the decision is recomputed from the stored outcomes.
    Nothing of what is stored is executed.

    Args:
        folder: the folder.
        scores: the metric's score of each certification sample as this machine computes it now with the stored
            file. If they equal the stored ones, the claim stands on this machine too.

    Returns:
        The verdict with its reasons; a broken certificate is a result, not an exception.

    Example:
        >>> verify("no such folder").reasons
        ('certificate.json is missing.',)
    """
    folder = Path(folder)
    certificate = None
    try:
        hash_in(folder, CERTIFICATE)
        text = (folder / CERTIFICATE).read_text(encoding="utf-8")
        certificate = Certificate.from_json(text)
        if certificate.to_json() != text:
            raise CertificateError(f"{CERTIFICATE} was edited.")
        for check in _CHECKS:
            check(folder, certificate)
    except (CertificateError, UnicodeDecodeError) as error:
        return Verification(Verdict.BROKEN, (str(error),), certificate)
    if not certificate.holds:
        return Verification(Verdict.NO_CLAIM, (certificate.decision.value,), certificate)
    return _on_this_platform(folder, certificate, scores)


def _check_ledger(folder: Path, certificate: Certificate) -> None:
    entries, _ = read_ledger(folder / LEDGER)
    issued = [entry for entry in entries if entry["event"] == "certificate"]
    if certificate.sha256 not in (entry["sha256"] for entry in issued):
        raise CertificateError(
            f"{CERTIFICATE} is not the one that the ledger records: it was edited or replaced."
        )
    if certificate.holds and not any(_allows(entry, certificate) for entry in entries):
        raise CertificateError(
            "The ledger records no attempt with this data, these finalists and this level."
        )


def _allows(entry: dict[str, Any], certificate: Certificate) -> bool:
    attempt = certificate.attempt
    return (
        entry["event"] == "attempt"
        and entry["data_sha256"] == certificate.data_sha256
        and tuple(entry["finalists"]) == certificate.finalists
        and (entry["number"], entry["transcripts"], entry["alpha"])
        == (attempt.number, attempt.transcripts, attempt.alpha)
    )


def _check_files(folder: Path, certificate: Certificate) -> None:
    for name, expected in certificate.files.items():
        if hash_in(folder, name) != expected:
            raise CertificateError(f"{name} is not the file that was certified: its content has changed.")
    if certificate.holds and certificate.artefact_sha256 not in certificate.files.values():
        raise CertificateError("The certified file is not in the folder.")


def _check_level(_: Path, certificate: Certificate) -> None:
    attempt, alpha = certificate.attempt, certificate.claim.alpha
    if attempt.alpha > attempt_alpha(alpha, attempt.number, attempt.transcripts) * (1 + 1e-9):
        raise CertificateError(
            f"Attempt {attempt.number} was allowed less than the level {attempt.alpha:g} that was used."
        )


def _check_decision(folder: Path, certificate: Certificate) -> None:
    if not certificate.holds:
        return
    outcomes = load_outcomes(folder / OUTCOMES)
    parts = (Part(certificate.claim, certificate.method, certificate.evidence), *certificate.also)
    if len(outcomes) != len(parts):
        raise CertificateError(f"{len(parts)} claims are made and outcomes are stored for {len(outcomes)}.")
    for part, seen in zip(parts, outcomes, strict=True):
        _check_part(part, seen, certificate.attempt.alpha)


def _check_part(part: Part, outcomes: Outcomes, alpha: float) -> None:
    test, stored = TESTS.get(part.method.name), part.evidence
    if stored is None or test is None or test.version != part.method.version:
        raise CertificateError(f"This version of tersor cannot recompute the test {part.method.name!r}.")
    again = test(outcomes, part.claim.margin)
    if again.p > alpha:
        raise CertificateError(f"The stored outcomes do not support the claim: p = {again.p:.4g}.")
    same = (again.n, again.b, again.c) == (stored.n, stored.b, stored.c)
    if not same or not math.isclose(again.p, stored.p, rel_tol=1e-6):
        raise CertificateError(
            f"The stored outcomes give p = {again.p:.6g}, the certificate says {stored.p:.6g}."
        )


_CHECKS: tuple[Callable[[Path, Certificate], None], ...] = (
    _check_ledger,
    _check_files,
    _check_level,
    _check_decision,
)


def _on_this_platform(folder: Path, certificate: Certificate, scores: np.ndarray | None) -> Verification:
    differences = certificate.machine.differences(this_platform(certificate.setting.runtime))
    if scores is None:
        verdict = Verdict.OTHER_MACHINE if differences else Verdict.VERIFIED
        return Verification(verdict, differences, certificate)
    changed = "".join(_changes(load_outcomes(folder / OUTCOMES)[0], np.asarray(scores, dtype=np.float64)))
    if changed:
        return Verification(Verdict.BROKEN, (*differences, changed), certificate)
    return Verification(
        Verdict.VERIFIED, (*differences, "This machine gives the same score on every sample."), certificate
    )


def _changes(stored: Outcomes, scores: np.ndarray) -> Iterator[str]:
    """Yield what differs between the stored scores and those computed here."""
    if not isinstance(stored, Pairs):
        yield "Scores cannot be compared: this metric is defined on a whole set only."
    elif scores.shape != stored.candidate.shape:
        yield f"{len(scores)} scores were given for {len(stored)} certification samples."
    else:
        changed = int((scores != stored.candidate).sum())
        if changed:
            yield f"On this machine {changed} of {len(scores)} samples score differently: certify again here."
