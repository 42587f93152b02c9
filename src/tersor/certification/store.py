"""Writing a certification to a folder, and reading it back without running anything that is stored."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile

import numpy as np

from tersor.certification.certificate import Certificate
from tersor.certification.certify import Certification
from tersor.certification.evidence.outcomes import Outcomes, from_arrays
from tersor.errors import CertificateError, DataError

CERTIFICATE, OUTCOMES, LEDGER = "certificate.json", "outcomes.npz", "ledger.jsonl"


def save_certification(
    certification: Certification, folder: str | Path, files: Iterable[str] = (), *, index: int | None = None
) -> Certificate:
    """Write the certificate of one finalist, its outcomes and a copy of the ledger into `folder`.

    Args:
        certification: what `certify` returned.
        folder: an existing folder; it already holds the model.
        files: paths within the folder of the files that the claim is about (the model, its external data).
        index: the finalist; None takes the boldest that holds, or else the first refusal. Every finalist that holds
            may be shipped, all claims are true at once.

    Returns:
        The certificate as written, with the hashes of all these files.

    Raises:
        CertificateError: if a file is missing, or none of the files has the hash that was certified.

    Example:
        `save_certification(certification, "out", ["model.onnx"])`, then `tersor.certification.verify.verify("out")`.
    """
    folder = Path(folder)
    index = (certification.chosen or 0) if index is None else index
    certificate = certification.certificates[index]
    named = [*files]
    if certificate.holds:
        arrays = _named_arrays(certification.outcomes[index])
        np.savez_compressed(folder / OUTCOMES, allow_pickle=False, **arrays)
        named.append(OUTCOMES)
    certificate = replace(certificate, files={name: hash_in(folder, name) for name in named})
    if certificate.holds and certificate.artefact_sha256 not in certificate.files.values():
        raise CertificateError(
            f"None of {', '.join(named)} is the file that was certified ({certificate.artefact_sha256[:12]}). "
            "Copy the exported file unchanged."
        )
    (folder / CERTIFICATE).write_text(certificate.to_json(), encoding="utf-8", newline="\n")
    ledger = certification.seal.ledger
    ledger.append("certificate", sha256=certificate.sha256, decision=certificate.decision.name)
    if ledger.path.resolve() != (folder / LEDGER).resolve():
        (folder / LEDGER).write_bytes(ledger.path.read_bytes())
    return certificate


def hash_in(folder: Path, name: str) -> str:
    """Return the hash of a file of the folder.

    Raises:
        CertificateError: if the name leads out of the folder, or there is no such file.
    """
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise CertificateError(f"{name!r} leads out of the folder.")
    path = folder / parts
    if not path.is_file():
        raise CertificateError(f"{name} is missing.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named_arrays(outcomes: Sequence[Outcomes]) -> dict[str, np.ndarray]:
    return {f"{i}.{name}": array for i, part in enumerate(outcomes) for name, array in part.arrays().items()}


def load_outcomes(path: Path) -> tuple[Outcomes, ...]:
    """Return stored outcomes, one entry a demand.

    Raises:
        CertificateError: if the file is not an archive of plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            parts: dict[int, dict[str, np.ndarray]] = {}
            for name in archive.files:
                number, _, field = name.partition(".")
                parts.setdefault(int(number), {})[field] = archive[name]
        return tuple(from_arrays(parts[number]) for number in sorted(parts))
    except (ValueError, OSError, EOFError, BadZipFile, DataError) as error:
        raise CertificateError(f"{path.name} does not hold stored outcomes: {error}") from error
