"""The Certificate: a claim that holds or is refused, as data, with everything needed to recompute it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    with_config,
)

from tersor.certification.evidence.outcomes import Evidence
from tersor.certification.ledger import Attempt
from tersor.certification.platform import Platform
from tersor.errors import CertificateError

#: Version of the layout of `certificate.json`; it grows when a field changes its meaning or goes.
SCHEMA = 1


class Decision(Enum):
    """What became of a finalist; the value says what it means and what to do."""

    HOLDS = "The drop is at most the margin, with the stated confidence."
    REFUSED = (
        "The sealed data do not show that the drop is within the margin. That does not prove that it is not: allow a "
        "larger margin, compress less, recover longer, or bring more certification samples."
    )
    NOT_TESTED = "A safer finalist failed first, so this one was not tested and cannot be claimed."
    TOO_FEW_SAMPLES = (
        "So few certification samples could not show this margin even if the two models never differed. Bring more "
        "samples, or allow a larger margin. The data was not read."
    )
    SPENT = (
        "This certification data has been used up by earlier attempts. Bring new certification data and a new ledger; "
        "the models need no new search."
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be shown.

    Attributes:
        metric: name of the metric.
        margin: largest drop that is accepted, in the unit of the metric.
        confidence: confidence of the claim over all attempts on the same data.
        higher_is_better: direction of the metric.
        labelled: whether the metric compares with labels; without, it compares with the original's answers.
        group: name of the subgroup of samples; empty for all.
        drawn: reference that draws the inputs at random again; empty where they are data.
    """

    metric: str
    margin: float
    confidence: float = 0.95
    higher_is_better: bool = True
    labelled: bool = True
    group: str = ""
    drawn: str = ""

    @model_serializer(mode="wrap")
    def _without_blank(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `drawn` where there is data: certificates that do not know it stay the same text."""
        values = written(self)
        return values if self.drawn else {name: value for name, value in values.items() if name != "drawn"}

    @property
    def alpha(self) -> float:
        """Probability of a false certificate that all attempts together may have."""
        return round(1 - self.confidence, 12)


@dataclass(frozen=True, slots=True)
class Setting:
    """How the file is run; the claim holds for this setting.

    Attributes:
        runtime: name of the runtime.
        threads: threads that it may use.
        batch: samples in a call.
        seed: seed of the run that made the finalists.
    """

    runtime: str = "onnxruntime"
    threads: int = 1
    batch: int = 1
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Method:
    """The test: its name and version, and whether its level is `exact`, `anytime` or only `asymptotic`."""

    name: str
    version: str
    kind: str


@dataclass(frozen=True, slots=True)
class Part:
    """A further claim that had to hold too: another metric, or a subgroup."""

    claim: Claim
    method: Method
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Speedup:
    """How much faster the file was measured to be than the base, with an interval."""

    ratio: float
    low: float
    high: float
    confidence: float = 0.95


_ByName = Annotated[
    Decision,
    BeforeValidator(
        lambda value: Decision.__members__.get(value, value) if isinstance(value, str) else value
    ),
    PlainSerializer(lambda decision: decision.name),
]


@with_config(ConfigDict(extra="forbid", ser_json_inf_nan="strings"))
@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A claim about one exported file, and what it rests on.

    Attributes:
        decision: whether the claim holds; its value is the advice.
        name: name of the finalist.
        claim: what was to be shown.
        method: the test.
        attempt: number of the attempt on this data, transcripts charged, and the level that was allowed.
        samples: number of certification samples.
        evidence: counts, estimate and p-value; None unless the claim holds, because a number shown after a failure
            would have to be paid for by every later attempt.
        bound: a tighter bound of the drop, valid at the same level although the best of several finalists was
            taken; None likewise.
        also: further claims that hold as well; the certificate holds only if all do.
        base_quality: metric of the base on the certification samples, descriptive; None likewise.
        position: place of the finalist in the frozen order, from 0.
        finalists: hashes of all finalists in the frozen order, from the safest to the boldest.
        base_sha256: hash of the base's file.
        artefact_sha256: hash of the finalist's file.
        data_sha256: hash of the certification samples.
        setting: runtime, threads, batch and seed.
        machine: processor and version of the runtime.
        speedup: measured speed-up over the base, if it was measured; no part of the claim.
        files: hashes of the files that are stored with the certificate, by their path in the folder.
        schema: version of this layout.
    """

    decision: _ByName
    name: str
    claim: Claim
    method: Method
    attempt: Attempt
    samples: int
    position: int
    finalists: tuple[str, ...]
    base_sha256: str
    artefact_sha256: str
    data_sha256: str
    setting: Setting
    machine: Platform
    evidence: Evidence | None = None
    bound: float | None = None
    also: tuple[Part, ...] = ()
    base_quality: float | None = None
    speedup: Speedup | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def holds(self) -> bool:
        """Whether the claim is made."""
        return self.decision is Decision.HOLDS

    def to_json(self) -> str:
        """Return the certificate as indented JSON, the same text for equal certificates."""
        return _ADAPTER.dump_json(self, indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Certificate":
        """Read a certificate written by `to_json`.

        Raises:
            CertificateError: if the text is not a certificate, naming the first field at fault.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the text"
            raise CertificateError(
                f"This is not a certificate of schema {SCHEMA}: {where}: {first['msg']}. Write one with `to_json`."
            ) from error

    @property
    def sha256(self) -> str:
        """Hash of the text that `to_json` gives."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def words(self) -> str:
        """Return one paragraph of plain English."""
        if not self.holds:
            return f"No claim is made about {self.name}. {self.decision.value}"
        sentences = (
            _warning(self),
            _statement(self),
            _observed(self),
            _also(self),
            _basis(self),
            _scope(self),
        )
        return " ".join(sentence for sentence in sentences if sentence)


_ADAPTER = TypeAdapter(Certificate)


def _warning(certificate: Certificate) -> str:
    if certificate.claim.drawn:
        return (
            f"RANDOM INPUTS, NO LABELS: the inputs were drawn at random ({certificate.claim.drawn}) and are not your "
            "data; this says how often the file differs from the original on such inputs, and nothing about real "
            "ones. Search again with your own data (`--data`) before relying on it."
        )
    if not certificate.claim.labelled:
        return "NO LABELS: this says how often the file differs from the original, not how often it is right."
    if "asymptotic" in (certificate.method.kind, *(part.method.kind for part in certificate.also)):
        return "ASYMPTOTIC: the confidence is exact only in the limit of many samples."
    return ""


def _statement(certificate: Certificate) -> str:
    claim = certificate.claim
    side = "below" if claim.higher_is_better else "above"
    group = f" on {claim.group}" if claim.group else ""
    where = f"data like the {certificate.samples:,} sealed samples"
    if claim.drawn:
        where = f"inputs drawn as the {certificate.samples:,} sealed ones were"
    return (
        f"With {100 * claim.confidence:.4g}% confidence, the {claim.metric} of {certificate.name}{group} is at most "
        f"{claim.margin:.4g} {side} that of the original, on {where}."
    )


def _observed(certificate: Certificate) -> str:
    evidence = certificate.evidence
    if evidence is None:
        return ""
    worse = (evidence.estimate > 0) == certificate.claim.higher_is_better
    change = (
        f"{abs(evidence.estimate):.4g} {'lower' if worse else 'higher'}" if evidence.estimate else "the same"
    )
    counts = "" if evidence.b is None else f" ({evidence.b} samples worse, {evidence.c} better)"
    # Paid for by all finalists together, so it may come out above the margin, where it says nothing.
    tighter = certificate.bound is not None and certificate.bound < certificate.claim.margin
    bound = f"; the tighter bound at the same level is {certificate.bound:.4g}" if tighter else ""
    where = "those samples"
    if evidence.n < certificate.samples and not certificate.claim.group:
        where = f"the first {evidence.n:,} of them, which were enough,"
    return f"On {where} it was {change}{counts}{bound}."


def _also(certificate: Certificate) -> str:
    if not certificate.also:
        return ""
    listed = (
        f"{part.claim.metric}{f' on {part.claim.group}' if part.claim.group else ''} within {part.claim.margin:.4g}"
        for part in certificate.also
    )
    return f"At the same confidence, all of these hold together with it: {', '.join(listed)}."


def _basis(certificate: Certificate) -> str:
    evidence, attempt = certificate.evidence, certificate.attempt
    p = "" if evidence is None else f", p = {evidence.p:.3g} where {attempt.alpha:.3g} was allowed"
    return (
        f"Test: {certificate.method.name}{p}; attempt {attempt.number} on this data, finalist "
        f"{certificate.position + 1} of {len(certificate.finalists)} that were frozen before the data was read."
    )


def _scope(certificate: Certificate) -> str:
    setting, machine = certificate.setting, certificate.machine
    threads = "1 thread" if setting.threads == 1 else f"{setting.threads} threads"
    return (
        f"The claim is about the file {certificate.artefact_sha256[:12]}, run by {machine.runtime} "
        f"{machine.runtime_version} with {threads} and batch {setting.batch} on {machine.processor}; it says nothing "
        "about data of another kind."
    )
