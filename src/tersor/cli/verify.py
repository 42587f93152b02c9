"""`tersor verify`: recompute a certificate."""

from pathlib import Path

from tersor.cli.answer import Json, show


def verify(folder: Path, *, json: Json = False) -> int:
    """Recompute the certificate in FOLDER from its stored outcomes and hash the files it names.

    For example, `tersor verify out`

    Exit status: 0 it holds, 1 it does not, or it was made on another kind of machine.

    Args:
        folder: what `tersor optimize -o` wrote.
        json: print JSON.
    """
    from tersor.certification.verify import Verdict
    from tersor.certification.verify import verify as check

    _expect_certificate(folder)
    verification = check(folder)
    values = {"verdict": verification.verdict.name.lower(), "words": verification.words()}
    show(values, [verification.words()], json=json)
    return 0 if verification.verdict is Verdict.VERIFIED else 1


def _expect_certificate(folder: Path) -> None:
    """Raise unless `folder` is a folder with a certificate.

    Raises:
        ArgumentError: if it is none that tersor wrote.
        CertificateError: if tersor wrote it without a certificate.
    """
    from tersor.certification.store import CERTIFICATE
    from tersor.errors import ArgumentError, CertificateError
    from tersor.reporting.folder import MARKER, read_record

    if (folder / CERTIFICATE).exists():
        return
    if not (folder / MARKER).is_file():
        what = "is a file" if folder.is_file() else "does not exist" if not folder.exists() else "holds none"
        raise ArgumentError(
            f"The certificate is looked for in a folder that `tersor optimize -o` wrote, and {str(folder)!r} {what}."
        )
    if not (folder / "report.json").is_file():
        raise CertificateError(
            f"The search in {folder} has not ended: `tersor resume {folder}` goes on with it."
        )
    if read_record(folder).verdict.outcome == "improved":
        raise CertificateError(
            f"The certificate of {folder} was taken away: do not rely on what its report says."
        )
    raise CertificateError(
        f"{folder} holds the original, because nothing better was certified: there is no certificate to verify."
    )
