"""`tersor report`: write the documents of a run again, from its numbers."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tersor.cli.answer import Json, refuse_taken, show


def report(
    folder: Path,
    *,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    json: Json = False,
) -> int:
    """Write `report.html` and the model card of FOLDER again, from its `report.json`.

    For example, `tersor report out`, or `tersor report out -o story.html` for a copy elsewhere.

    Args:
        folder: what `tersor optimize -o` wrote.
        output: write the page alone to this file, and leave the folder as it is.
        json: print the record as JSON, and write nothing.
    """
    import sys

    from tersor.reporting.folder import read_record, rewrite
    from tersor.reporting.report import render_html, render_json

    if json:
        sys.stdout.write(render_json(read_record(folder)))
        return 0
    if output is None:
        page = rewrite(folder) / "report.html"
    else:
        refuse_taken(output)
        page = output
        page.write_text(render_html(read_record(folder)), encoding="utf-8")
    show({}, [f"wrote {page}"], json=False)
    return 0
