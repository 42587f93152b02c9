"""`tersor resume`: go on with a search that was stopped or killed."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def resume(
    folder: Path,
    *,
    budget: str | None = None,
    allow_code_execution: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Go on with the search in FOLDER, which `tersor optimize -o FOLDER` began and something stopped.

    What was made and measured is taken from the folder; run it from the directory in which the search was begun. Exit
    status as of `tersor optimize`; 0 also where the search has ended already.

    Args:
        folder: what `tersor optimize -o` was given.
        budget: time for what is left; what is left of the first budget when left out.
        allow_code_execution: as in `tersor optimize`; also needed where the folder lies outside the working directory.
        json: print the report as JSON on standard output.
    """
    from tersor.cli.progress import Display
    from tersor.cli.show import finish
    from tersor.search.asked import read_asked
    from tersor.search.interim import SEARCH
    from tersor.search.resume import has_ended
    from tersor.search.resume import resume as run

    if has_ended(folder):
        sys.stdout.write(f"The search in {folder} has ended; its answer is there.\n")
        return 0
    with Display() as display:
        result = run(folder, budget=budget, allow_code_execution=allow_code_execution, on_event=display)
    asked = read_asked(folder / SEARCH)
    return finish(result, folder, command=asked.command, config=asked.config, json=json)
