"""The output folder while a search runs: the best file so far, usable at any time, and what it is in plain words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tersor.errors import FolderError
from tersor.exporting.files import main_file
from tersor.reporting.folder import place_folder
from tersor.reporting.runner import run_script
from tersor.search.candidate import Candidate
from tersor.search.finalists import safety, work
from tersor.search.run import Run

#: Folder within the output folder in which a search keeps its journal.
SEARCH = "search"
_CARD = """# {model}: a search that has not ended

`{file}` is {what}.

It was {checked} and has **no certificate yet**. `tersor resume {folder}` goes on from here, measures and certifies it;
`python run.py` runs the file as it is. `search/log.txt` tells what happened so far, `search/candidates/` holds
every candidate with its file.
"""


@dataclass(slots=True)
class Interim:
    """Keeps the output folder up to date.

    Attributes:
        output: the folder; None writes nothing.
        shown: name of the candidate that lies there.
    """

    output: Path | None
    shown: str = field(default="")

    def show(self, run: Run, made: Sequence[Candidate]) -> None:
        """Put the best of `made` so far, or the original, into the folder, unless it is there already.

        Raises:
            FolderError: if the folder cannot be written at the first time; later faults are only said.
        """
        best = best_so_far(run, made)
        if self.output is None or best.name == self.shown or best.artefact is None:
            return
        file = main_file(run.request.target)
        texts = {
            "README.md": _words(run, best, self.output),
            "run.py": run_script(file, best.artefact.options),
            "plan.json": best.plan.to_json() + "\n",
        }
        try:
            place_folder(self.output, texts, {file: best.artefact.path}, kept=(SEARCH,))
        except FolderError as error:
            if not self.shown:
                raise
            run.say("result", f"the best so far could not be shown: {error}")
        self.shown = best.name


def best_so_far(run: Run, made: Sequence[Candidate]) -> Candidate:
    """Return the candidate of least size or work that holds the limit on the search data, or the original.

    Nothing is measured before all candidates are made, so multiply-adds stand in for time and memory.
    """
    holding = [c for c in made if c.artefact is not None and c.quality is not None and safety(run, c) > 0]
    return min((run.base, *holding), key=lambda c: _cost(run, c))


def _cost(run: Run, candidate: Candidate) -> float:
    assert candidate.artefact is not None
    return float(candidate.artefact.size_bytes) if run.request.goal == "size" else work(candidate)


def _words(run: Run, best: Candidate, folder: Path) -> str:
    assert best.quality is not None
    found = f"{run.task.metric.name} {best.quality.value:.4f}, limit {run.floor:.4f}"
    original = best is run.base
    return _CARD.format(
        file=main_file(run.request.target),
        model=type(run.task.model).__name__,
        what="the original model, exported" if original else f"the candidate *{best.name}*, the best so far",
        checked=f"evaluated on {best.quality.count} search samples ({found})",
        folder=folder.name,
    )
