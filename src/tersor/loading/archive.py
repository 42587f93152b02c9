"""Look at a zip archive (`.npz`, `.pt`) before anything is unpacked from it."""

import zipfile
from pathlib import Path, PurePosixPath

from tersor.errors import TersorError
from tersor.loading.references import first_line

MAX_ENTRIES = 100_000
MAX_BYTES = 32 * 2**30
#: Declared over stored bytes of a whole archive. Real arrays compress a hundredfold at most, bombs a thousandfold.
MAX_RATIO = 200
#: Below this many unpacked bytes an archive is harmless whatever its ratio.
_SMALL = 64 * 2**20


def check_archive(path: Path, error: type[TersorError]) -> dict[str, int]:
    """Refuse an archive that is broken, or that would unpack to far more than it holds.

    Args:
        path: the file.
        error: class of the exception raised.

    Returns:
        The unpacked size in bytes of each entry, by name.

    Raises:
        TersorError: of class `error`, if the file is no zip archive, names paths outside itself, or is a bomb.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as cause:  # on damaged bytes zipfile and struct each raise their own
        raise error(f"{path.name!r} is not a readable archive: {first_line(cause)}") from cause
    total, stored = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
    outside = [e.filename for e in entries if _leaves(e.filename)]
    if outside:
        raise error(
            f"{path.name!r} holds the entry {outside[0]!r}, which points outside the archive; refused."
        )
    if (
        len(entries) > MAX_ENTRIES
        or total > MAX_BYTES
        or (total > _SMALL and total > MAX_RATIO * max(stored, 1))
    ):
        raise error(
            f"{path.name!r} would unpack {stored:,} bytes to {total:,} in {len(entries):,} entries; refused as a "
            "decompression bomb. If it is genuine, store it uncompressed or load it in your own function."
        )
    return {e.filename: e.file_size for e in entries}


def _leaves(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in path.parts[0:1]
