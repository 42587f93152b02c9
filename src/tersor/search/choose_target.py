"""`target="auto"`: the runtime in which the original is best becomes the target of the whole search."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tersor.loading.task import Task
from tersor.reporting.words import seconds, size
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.events import Event
from tersor.search.journal import Journal, write_whole
from tersor.search.request import AUTO, Request, installed_targets
from tersor.search.runtime_race import gain_of, race_runtimes, runtime_of

#: File of the journal that says how the target was chosen; there is none where it was named.
CHOICE = "target.txt"


class Settled(NamedTuple):
    """A request whose target is a runtime, and in a sentence why it is that one; empty where it was named."""

    request: Request
    why: str


def choose_target(request: Request, task: Task, clock: Clock, journal: Journal) -> Settled:
    """Return the request with one runtime as its target, chosen by a race where it was left open.

    A search that goes on has its target already, and finds in its journal how it was chosen.

    Args:
        request: what was asked for.
        task: the original and its data.
        clock: time of the search, which the race is part of.
        journal: where the choice is kept.
    """
    kept = journal.folder / CHOICE
    if AUTO not in request.targets:
        return Settled(request, kept.read_text(encoding="utf-8") if kept.exists() else "")
    target, why = _chosen(request, task, clock)
    request.listen(Event("baseline", why))
    write_whole(kept, why)
    return Settled(replace(request, targets=(target,)), why)


def _chosen(request: Request, task: Task, clock: Clock) -> tuple[str, str]:
    """Return the runtime and why it is that one."""
    first, *others = installed_targets()
    if not others:
        return first, f"The target is {first}: no other runtime that models are made for is installed."
    if request.goal == "size":
        return first, f"The target is {first}: files weigh the same in every runtime."
    best = _best_of_each(race_runtimes(request, task, clock), request.goal)
    if len(best) < 2:
        return first, f"The target is {first}: no other runtime was measured in the time for a race."
    return _judged(list(best.values()), request.goal)


def _best_of_each(files: Sequence[Candidate], goal: str) -> dict[str, Candidate]:
    """Return the best file of each runtime, in the order of the race."""
    best: dict[str, Candidate] = {}
    for file in files:
        known = best.get(runtime_of(file))
        if known is None or gain_of(file, goal).value > gain_of(known, goal).value:
            best[runtime_of(file)] = file
    return best


def _judged(best: Sequence[Candidate], goal: str) -> tuple[str, str]:
    """Return the runtime of the best file, the first where intervals overlap, and why it is that one."""
    winner = best[0]
    for file in best[1:]:
        if gain_of(file, goal).low > gain_of(winner, goal).high:
            winner = file
    rivals = [file for file in best if file is not winner]
    clear = all(gain_of(winner, goal).low > gain_of(file, goal).high for file in rivals)
    told = "; ".join(_amount(file, goal) for file in (winner, *rivals))
    noise = "" if clear else " Where no difference is shown, the first is taken."
    return runtime_of(winner), (
        f"The target is {runtime_of(winner)}, which a race of the original's files chose ({told}).{noise}"
    )


def _amount(file: Candidate, goal: str) -> str:
    """Return what a file is, what it takes, and how that compares."""
    assert file.speed is not None
    kind, used = file.name.partition(", ")[2], file.speed.candidate
    amount = size(used.peak_bytes) if goal == "memory" else f"{seconds(used.median_s)} a call"
    return f"{runtime_of(file)} with {kind}: {amount}, {gain_of(file, goal).words()}"
