"""`tersor index`: one page over many runs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tersor.cli.answer import Json, show


def index(
    *runs: Path,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    json: Json = False,
) -> int:
    """Write `index.html`, with one line for each run, the latest first.

    For example, `tersor index runs` for every run directly inside `runs`, or `tersor index out other/out -o all.html`.

    Args:
        runs: folders that tersor wrote, or one folder that holds them.
        output: the page; without it, `index.html` in the folder that holds the runs.
        json: print JSON.
    """
    from tersor.errors import ArgumentError
    from tersor.reporting.index import write_index

    if not runs:
        raise ArgumentError(
            "Name the folders of the runs, or one folder that holds them: `tersor index runs`."
        )
    page = write_index(*runs, page=output)
    show({"page": str(page)}, [f"wrote {page}"], json=json)
    return 0
