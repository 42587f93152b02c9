"""What a search has done so far, on disk: each candidate as a folder that appears as a whole or not at all."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from tersor.loading.inputs import Inputs
from tersor.loading.task import Task
from tersor.search.candidate import Candidate
from tersor.search.stored import (
    Verdict,
    at,
    judged,
    read_candidate,
    verdict_on,
    with_integers,
    write_candidate,
)

#: Files of the folder of a search.
FROZEN, CARD, STARTS = "finalists.json", "candidate.json", "starts"
#: Folder of what the original answered, which recoveries share; removed when no more candidates are made.
TEACHER = "teacher"
#: A candidate whose making ended the process this often is not made again.
_MOST_DEATHS = 2
#: A measurement from too few turns has an interval without an end; by default pydantic writes null for it.
ENDLESS = ConfigDict(ser_json_inf_nan="strings")
_FROZEN = TypeAdapter(list[list[Verdict]], config=ENDLESS)


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


@dataclass(frozen=True, slots=True)
class Journal:
    """The folder of a search.

    Attributes:
        folder: where everything is written.
        keeps_models: whether weights are written too, so that a search can go on from here.
    """

    folder: Path
    keeps_models: bool = False

    def _place(self, name: str) -> Path:
        return self.folder / "candidates" / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

    def begin(self, name: str) -> Path:
        """Return an empty folder for the files of the candidate `name`, which is about to be made."""
        draft, deaths = self._draft(name), self._deaths(name)
        self.forget(name)
        draft.mkdir(parents=True)
        (draft / STARTS).write_text(str(deaths + 1), encoding="utf-8")
        return draft

    def forget(self, name: str) -> None:
        """Remove what there is of a candidate that was begun and not made."""
        shutil.rmtree(self._draft(name), ignore_errors=True)

    def killed_by(self, name: str) -> bool:
        """Whether the process ended so often while `name` was made that it is to blame."""
        return self._deaths(name) >= _MOST_DEATHS

    def _deaths(self, name: str) -> int:
        """Return how often a process began `name` and neither made it nor failed."""
        starts = self._draft(name) / STARTS
        return int(starts.read_text(encoding="utf-8") or 0) if starts.exists() else 0

    def _draft(self, name: str) -> Path:
        return self._place(name).with_suffix(".draft")

    def keep(self, candidate: Candidate, task: Task, elapsed_s: float) -> Candidate:
        """Write `candidate`, and return it with the path that its file has now.

        Args:
            candidate: made, or failed.
            task: its task.
            elapsed_s: seconds that the search has taken so far.
        """
        place = self._place(candidate.name)
        draft = self._draft(candidate.name)
        draft.mkdir(parents=True, exist_ok=True)
        (draft / STARTS).unlink(missing_ok=True)
        card = write_candidate(candidate, task, draft, models=self.keeps_models)
        write_whole(draft / CARD, json.dumps({**card, "elapsed_s": elapsed_s}, indent=1) + "\n")
        shutil.rmtree(place, ignore_errors=True)
        draft.replace(place)
        return at(candidate, place)

    def recall(self, name: str, task: Task) -> Candidate | None:
        """Return the candidate `name` as it was kept, in floating point with its module; None if it is not there."""
        place = self._place(name)
        if not (place / CARD).exists():
            return None
        return read_candidate(json.loads((place / CARD).read_text(encoding="utf-8")), place, task)

    def completed(self, candidate: Candidate, inputs: Inputs, calibration: list[Inputs]) -> Candidate:
        """Return `candidate` with its module, which an integer twin that was recalled has to be given back."""
        if candidate.model is not None or candidate.float_model is None:
            return candidate
        return with_integers(candidate, self._place(candidate.name), inputs, calibration)

    def names(self) -> tuple[str, ...]:
        """Return the names of all candidates that were kept, in the order in which they were made."""
        return tuple(card["name"] for card in self._cards())

    def elapsed_s(self) -> float:
        """Return the seconds that the search had taken when it last kept something."""
        return max((card["elapsed_s"] for card in self._cards()), default=0.0)

    def _cards(self) -> list[dict[str, Any]]:
        paths = [p for p in self.folder.glob(f"candidates/*/{CARD}") if p.parent.suffix != ".draft"]
        cards = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        return sorted(cards, key=lambda card: card["elapsed_s"])

    def freeze(self, finalists: Sequence[Candidate], others: Sequence[Candidate]) -> None:
        """Write what goes before the sealed data, in its order, and what became of the others, before it is opened."""
        found = [[verdict_on(candidate) for candidate in part] for part in (finalists, others)]
        write_whole(self.folder / FROZEN, _FROZEN.dump_json(found, indent=1).decode())

    def frozen(self, made: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]] | None:
        """Return finalists and others as they were frozen; None if they were not yet."""
        path = self.folder / FROZEN
        if not path.exists():
            return None
        known = {candidate.name: candidate for candidate in made}
        finalists, others = _FROZEN.validate_json(path.read_bytes())
        # One that was given up for lack of time was never kept; it is no finalist.
        others = [verdict for verdict in others if verdict.name in known]
        if not {verdict.name for verdict in finalists} <= set(known):
            return None
        return [judged(known[v.name], v) for v in finalists], [judged(known[v.name], v) for v in others]
