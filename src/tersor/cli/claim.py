"""A certificate for a file that exists already, such as one that another tool quantized, against its reference."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tersor.errors import ArgumentError

if TYPE_CHECKING:
    from tersor.certification.certificate import Certificate
    from tersor.exporting.artefact import Artefact
    from tersor.loading.build import Built


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ClaimFlags:
    """Whether the loss of the candidate is certified on the sealed part of the data."""

    max_drop: str = ""
    "Largest loss to certify, such as 1%; nothing is certified without it."

    confidence: float = 0.95
    "Confidence of the certificate."

    ledger: Path | None = None
    "File that counts the attempts on this certification data; the one in the output folder when left out."

    output: Annotated[Path, Parameter(alias="-o")] = Path("certified")
    "Folder for the candidate and its certificate, which `tersor verify` recomputes."


NO_CLAIM = ClaimFlags()


def claim(built: "Built", files: "list[Artefact]", flags: ClaimFlags, threads: int) -> "Certificate":
    """Certify that `files[1]` loses at most what is allowed against `files[0]`, and write the candidate with it.

    Raises:
        ArgumentError: if the metric or the candidate cannot be certified.
        CertificateError: if earlier attempts have used the data up.
        DataError: if there are too few certification samples.
    """
    with tempfile.TemporaryDirectory(prefix=".tersor-", dir=flags.output.absolute().parent) as place:
        folder = Path(place) / "made"
        folder.mkdir()
        told = _certified(built, files, flags, threads, folder)
        if flags.output.is_dir():
            flags.output.rmdir()
        folder.rename(flags.output)
    return told


def _certified(
    built: "Built", files: "list[Artefact]", flags: ClaimFlags, threads: int, folder: Path
) -> "Certificate":
    from tersor.certification.certificate import Setting
    from tersor.certification.certify import Contender, certify
    from tersor.certification.ledger import Ledger
    from tersor.certification.seal import Seal
    from tersor.certification.store import LEDGER, save_certification
    from tersor.cli.opened import as_module
    from tersor.exporting.opening import open_artefact
    from tersor.loading.evaluate import evaluate
    from tersor.loading.limit import parse_drop
    from tersor.search.run import EVALUATION_BATCH
    from tersor.search.sealed import check_samples

    task = built.task
    base, candidate = files
    if task.metric.of_model is not None or candidate.path.suffix != ".onnx":
        raise ArgumentError(
            "What is certified is an .onnx file, with a metric of (predictions, targets) on sealed samples."
        )
    value = evaluate(task.metric, as_module(base, threads=threads), task.search)
    margin = parse_drop(flags.max_drop).margin(value)
    seal = Seal.of(task, Ledger(flags.ledger or folder / LEDGER))
    check_samples(task, flags.confidence, margin, seal)

    def contender(file: "Artefact") -> Contender:
        read = seal.reader(open_artefact(file, threads=threads), task.metric, batch=EVALUATION_BATCH)
        return Contender(file.path.name, file.sha256, read)

    found = certify(
        contender(base),
        [contender(candidate)],
        seal=seal,
        metric=task.metric,
        margin=margin,
        confidence=flags.confidence,
        setting=Setting(candidate.runtime, threads, EVALUATION_BATCH),
    )
    shutil.copyfile(candidate.path, folder / "model.onnx")
    return save_certification(found, folder, ["model.onnx"])
