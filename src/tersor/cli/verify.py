"""`tersor verify`: recompute a certificate."""

import sys
from pathlib import Path


def verify(folder: Path, /) -> int:
    """Recompute the certificate in FOLDER from its stored outcomes and hash the files it names.

    Exit status: 0 it holds, 1 it does not, or it was made on another kind of machine.

    Args:
        folder: what `tersor optimize -o` wrote.
    """
    from tersor.certification.verify import Verdict
    from tersor.certification.verify import verify as check

    verification = check(folder)
    sys.stdout.write(verification.words() + "\n")
    return 0 if verification.verdict is Verdict.VERIFIED else 1
