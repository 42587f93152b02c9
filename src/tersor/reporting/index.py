"""index.html over many artefact folders: one line a run, the latest first."""

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from tersor.errors import ArgumentError, FolderError
from tersor.reporting import words
from tersor.reporting.clean import clean
from tersor.reporting.folder import read_record
from tersor.reporting.record import Record
from tersor.reporting.report import date, fill

_MARK = '<meta name="generator" content="tersor">'


def render_index(runs: Iterable[tuple[str, Record]], title: str = "Runs") -> str:
    """Return a page with one line for each run, the latest first.

    Args:
        runs: folder of the run, relative to the page, and its record.
        title: heading of the page.
    """
    ordered = sorted(runs, key=lambda run: _moment(run[1]), reverse=True)
    return fill(
        "index.html.j2", title=title, runs=[_line(folder, clean(record)) for folder, record in ordered]
    )


def _moment(record: Record) -> datetime:
    moment = datetime.fromisoformat(record.created)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _line(folder: str, record: Record) -> dict[str, str]:
    shipped = record.shipped
    known = shipped.certified or shipped.quality
    return {
        "link": f"./{quote(folder.encode('utf-8', 'surrogateescape'))}/report.html",
        "title": record.title,
        "model": record.aim.model,
        "standing": record.verdict.standing.value,
        "recipe": "; ".join(shipped.recipe) or "unchanged",
        "quality": f"{record.aim.metric} {words.quality(known.value if known else None)}",
        "speedup": words.interval(shipped.speedup, words.factor),
        "size": words.size(shipped.size_bytes),
        "date": date(record),
    }


def write_index(folder: str | Path) -> Path:
    """Write `index.html` over the artefact folders directly inside `folder`; others are passed over.

    Returns:
        The page.

    Raises:
        FolderError: if there is no artefact folder, or an `index.html` that tersor did not write.
    """
    folder = Path(folder)
    runs = [
        (path.parent.name, record)
        for path in sorted(folder.glob("*/report.json"))
        if (record := _read(path.parent))
    ]
    if not runs:
        raise FolderError(
            f"No folder in {folder} was written by tersor. Give the folder that holds your output folders."
        )
    page = folder / "index.html"
    if page.exists() and _MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise FolderError(f"{page} was not written by tersor. Move it away first.")
    fresh = folder / f".index.{os.getpid()}.html"
    try:
        fresh.write_text(render_index(runs, folder.resolve().name or "Runs"), encoding="utf-8")
        fresh.replace(page)
    finally:
        fresh.unlink(missing_ok=True)
    return page


def _read(folder: Path) -> Record | None:
    try:
        return read_record(folder)
    except (ArgumentError, FolderError):
        return None
