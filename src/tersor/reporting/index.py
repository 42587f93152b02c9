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
from tersor.reporting.tables import recipe

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
    """Return what the page tells of a run; its folder tells runs of one model apart."""
    shipped = record.shipped
    known = shipped.certified or shipped.quality
    return {
        "link": f"./{quote(folder.encode('utf-8', 'surrogateescape'))}/report.html",
        "title": record.title,
        "model": folder if record.title == record.aim.model else f"{folder}: {record.aim.model}",
        "standing": record.verdict.standing.value,
        "recipe": recipe(shipped),
        "quality": f"{record.aim.metric} {words.quality(known.value if known else None)}",
        "speedup": words.interval(shipped.speedup, words.factor),
        "size": words.size(shipped.size_bytes),
        "date": date(record),
    }


def write_index(*places: str | Path, page: str | Path | None = None) -> Path:
    """Write a page over artefact folders.

    Args:
        places: artefact folders, or folders with some directly inside; others are passed over.
        page: the page to write; None takes `index.html` in the folder that holds the runs.

    Returns:
        The page.

    Raises:
        FolderError: if there is no artefact folder, or something at `page` that tersor did not write.
    """
    runs = {folder.resolve(): record for place in places for folder, record in _runs(Path(place))}
    if not runs:
        listed = ", ".join(map(str, places)) or "."
        raise FolderError(
            f"No folder in {listed} was written by tersor. Give the folder that holds your output folders."
        )
    page = _common(list(runs), places) / "index.html" if page is None else Path(page)
    if page.exists() and _MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise FolderError(f"{page} was not written by tersor. Move it away first.")
    if not page.absolute().parent.is_dir():
        raise FolderError(f"The folder {page.absolute().parent} does not exist. Make it first.")
    root = page.resolve().parent
    lines = [(os.path.relpath(folder, root), record) for folder, record in runs.items()]
    fresh = page.with_name(f".{page.name}.{os.getpid()}")
    try:
        fresh.write_text(render_index(lines, root.name or "Runs"), encoding="utf-8")
        fresh.replace(page)
    finally:
        fresh.unlink(missing_ok=True)
    return page


def _runs(place: Path) -> list[tuple[Path, Record]]:
    """Return the artefact folder that `place` is, or those directly inside."""
    folders = (
        [place]
        if (place / "report.json").is_file()
        else sorted(p.parent for p in place.glob("*/report.json"))
    )
    return [(folder, record) for folder in folders if (record := _read(folder))]


def _common(runs: list[Path], places: tuple[str | Path, ...]) -> Path:
    """Return the one folder that was named, or the deepest that holds every run."""
    if len(places) == 1 and Path(places[0]).resolve() not in runs:
        return Path(places[0])
    return Path(os.path.commonpath([run.parent for run in runs]))


def _read(folder: Path) -> Record | None:
    try:
        return read_record(folder)
    except (ArgumentError, FolderError):
        return None
