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

    verification = check(folder)
    values = {"verdict": verification.verdict.name.lower(), "words": verification.words()}
    show(values, [verification.words()], json=json)
    return 0 if verification.verdict is Verdict.VERIFIED else 1
