"""A search from its first step to its last, new or gone on with: one way, whose journal knows what is done."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tersor.certification.ledger import Ledger
from tersor.certification.seal import Seal
from tersor.certification.store import LEDGER
from tersor.errors import ArgumentError, FolderError
from tersor.loading.build import Built, build_task
from tersor.loading.onnx.graph_model import GraphModel
from tersor.loading.split import Shares
from tersor.reporting.folder import refuse_foreign
from tersor.reporting.remains import clear_remains
from tersor.search.answer import confirm, in_order, in_preference, measured
from tersor.search.asked import ASKED, Asked
from tersor.search.baseline import ORIGINAL, relocated, start
from tersor.search.candidate import Candidate
from tersor.search.choose_target import choose_target
from tersor.search.clock import Clock
from tersor.search.descend import descend
from tersor.search.disjoint import check_given_splits, is_given, without_near_copies
from tersor.search.events import Event
from tersor.search.executors import EXECUTORS
from tersor.search.finalists import choose_finalists
from tersor.search.graphs import check_methods, make_from_graph
from tersor.search.interim import SEARCH, Interim
from tersor.search.journal import FROZEN, TEACHER, Journal
from tersor.search.log import LOG, Log
from tersor.search.outcome import Fate, Outcome
from tersor.search.request import Options, Request, check_leave
from tersor.search.result import Result
from tersor.search.run import Run, calibration_inputs
from tersor.search.sealed import NOT_TRIED, check_samples, try_finalists
from tersor.search.stops import Stops
from tersor.search.twins import Report
from tersor.search.unlearned import without_learning

#: File that is written with the answer.
REPORT = "report.json"


class Enough(Exception):
    """As many candidates were made as were asked for."""


@dataclass(frozen=True)
class Order:
    """What `tersor.optimize` or `tersor.resume` was called with.

    Attributes:
        model: the module.
        data: data or a reference.
        metric: as it was given.
        request: what was asked for, checked.
        options: the less common words.
        asked: all of it as plain data.
        resumed: whether the output folder holds a search to go on with.
        extra_s: time for what is left of such a search, seconds; None for what is left of its budget.
    """

    model: nn.Module
    data: object
    metric: Any
    request: Request
    options: Options
    asked: Asked
    resumed: bool = False
    extra_s: float | None = None

    @property
    def output(self) -> Path | None:
        """The output folder, as an absolute path."""
        given = self.options.get("output")
        return None if given is None else Path(given).expanduser().absolute()


@dataclass
class Stage:
    """What the steps of one search share besides the Run.

    Attributes:
        seal: the certification samples behind their lock.
        notes: how the data was bound.
        interim: the output folder as it is now.
        stops: interruptions.
        log: what was said.
        work: temporary files.
        made: the candidates, in the order in which they were made.
        hurried: whether the time was up before there were no more candidates to make.
    """

    seal: Seal
    notes: tuple[str, ...]
    interim: Interim
    stops: Stops
    log: Log
    work: tempfile.TemporaryDirectory[str]
    made: list[Candidate] = field(default_factory=list)
    hurried: bool = False


def carry_out(order: Order) -> Result:
    """Carry out `order`; see `tersor.optimize` for what is raised."""
    output = order.output
    if output is not None:
        clear_remains(output)
    if output is not None and not order.resumed:
        refuse_foreign(output)
        _refuse_unfinished(output)
    work = tempfile.TemporaryDirectory(prefix="tersor-")
    folder = output / SEARCH if output is not None and order.resumed else Path(work.name) / SEARCH
    folder.mkdir(exist_ok=True)
    journal = Journal(folder, keeps_models=output is not None)
    clock = _clock(order, journal.elapsed_s())
    log = Log(order.request.listen, clock, path=folder / LOG)
    request = replace(order.request, listen=log)
    with Stops(lambda text: log(Event("result", text))) as stops:
        built = _built(order)
        request = without_learning(request, order.options.get("methods"), built.task)
        seal = Seal.of(built.task, _ledger(order, journal))
        if order.resumed:
            order.asked.check_same(built.task.model, seal.data_sha256)

        def admit(margin: float) -> None:
            if not (folder / FROZEN).exists():
                check_samples(built.task, request.confidence, margin, seal)

        if not request.drop.relative:  # known before the original is exported and measured
            admit(request.drop.amount)
        for line in built.notes.words():
            log(Event("data", line))
        request, target_because = choose_target(request, built.task, clock, journal)
        run = start(built.task, request, clock, journal, admit=admit)
        run = replace(run, target_because=target_because)
        stage = Stage(seal, built.notes.words(), Interim(output), stops, log, work)
        if output is not None and not order.resumed:
            run = _settled(run, stage, order, output)
        return _search(run, stage)


def _clock(order: Order, before_s: float) -> Clock:
    """Return the time, which goes on from `before_s`, when an earlier process last wrote something down."""
    begun_s = time.monotonic() - order.options.get("lead_s", 0.0) - before_s
    budget_s = order.request.budget_s if order.extra_s is None else before_s + order.extra_s
    return Clock(budget_s, begun_s)


def _built(order: Order) -> Built:
    torch.manual_seed(order.request.seed)
    shares = Shares(leave_out_copies=order.options.get("leave_out_copies", False))
    built = build_task(
        order.model,
        order.data,
        metric=order.metric,
        loss=order.options.get("loss"),
        shares=shares,
        seed=order.request.seed,
    )
    metric = built.task.metric
    if metric.of_model is not None:
        raise ArgumentError(
            f"{metric.name} is a function of the model and cannot be certified on sealed samples. Give a metric as a "
            "function of (predictions, targets)."
        )
    check_leave(order.request, built.task)
    check_methods(order.options.get("methods"), built.task)
    return _disjoint(built, shares.leave_out_copies) if is_given(built) else built


def _disjoint(built: Built, leave_out: bool) -> Built:
    """Return what was built of given splits, without near copies of sealed samples, or with a remark on them."""
    task, notes = built
    if leave_out:
        task, remarks = without_near_copies(task)
    else:
        remarks = check_given_splits(task)
    return Built(task, replace(notes, warnings=(*notes.warnings, *remarks)))


def _refuse_unfinished(output: Path) -> None:
    if (output / SEARCH / ASKED).exists() and not (output / REPORT).exists():
        raise FolderError(
            f"{output} holds a search that has not ended. `tersor resume {output.name}` goes on with it; to begin "
            "anew, remove the folder or choose another one."
        )


def _ledger(order: Order, journal: Journal) -> Ledger:
    """Return the ledger that was given, or the one of this search, which goes on from that of an earlier one."""
    given, own = order.options.get("ledger"), journal.folder / LEDGER
    if given is not None:
        return Ledger(given)
    earlier = None if order.output is None else order.output / LEDGER
    if earlier is not None and earlier.exists() and not own.exists():
        shutil.copyfile(earlier, own)
    return Ledger(own)


def _settled(run: Run, stage: Stage, order: Order, output: Path) -> Run:
    """Move the search into its output folder, which from now on holds something usable at any time."""
    temporary = run.journal.folder
    shutil.rmtree(output / SEARCH, ignore_errors=True)
    stage.interim.show(run, ())
    shutil.copytree(temporary, output / SEARCH, dirs_exist_ok=True)
    run = relocated(run, output / SEARCH)
    stage.log.path = output / SEARCH / LOG
    if order.options.get("ledger") is None:
        stage.seal.ledger = Ledger(output / SEARCH / LEDGER)
    # What was drawn for the model's own words is drawn again by its reference, whatever is then read from the model.
    # One who goes on keeps the runtime that was chosen.
    asked = replace(order.asked, data=run.task.drawn or order.asked.data, targets=run.request.targets)
    asked.of(run.task.model, stage.seal.data_sha256).write(output / SEARCH)
    return run


def _search(run: Run, stage: Stage) -> Result:
    finalists, others = _frozen(run, stage)
    sealed = try_finalists(run, finalists, stage.seal) if finalists else NOT_TRIED
    answers = in_preference(run, sealed.passed)[:2]
    best = next((found for answer in answers if (found := confirm(run, answer))), None)
    best = best and run.journal.completed(best, run.task.inputs, calibration_inputs(run.task))
    tried = in_order(stage.made, (*others, *sealed.tested), best)
    outcome = Outcome.INTERRUPTED if stage.stops.asked else _outcome(best, tried, hurried=stage.hurried)
    for candidate in tried:
        stage.log.note(candidate.words)
    result = Result(run, tried, best, sealed.certification, outcome, stage.notes, stage.work, stage.log.path)
    run.say("result", result.sentence)
    return result


def _frozen(run: Run, stage: Stage) -> tuple[list[Candidate], list[Candidate]]:
    """Return finalists and others: as an earlier process froze them, or chosen now from what is made now."""
    known = _recalled(run, set())
    frozen = run.journal.frozen(known)
    if frozen is not None:
        stage.made = known
        run.say("certify", "the finalists are frozen; going on with their test")
        return frozen
    _make(run, stage)
    shutil.rmtree(run.journal.folder / TEACHER, ignore_errors=True)
    # Made by an earlier process, or written down when the interruption came.
    stage.made += _recalled(run, {candidate.name for candidate in stage.made})
    finalists, others = choose_finalists(run, measured(run, stage.made))
    run.journal.freeze(finalists, others)
    return finalists, others


def _recalled(run: Run, known: set[str]) -> list[Candidate]:
    """Return what the journal holds besides the original and the candidates that are known, if it holds models."""
    if not run.journal.keeps_models:
        return []
    names = [name for name in run.journal.names() if name not in known | {ORIGINAL}]
    found = [run.journal.recall(name, run.task) for name in names]
    return [candidate for candidate in found if candidate is not None]


def _make(run: Run, stage: Stage) -> None:
    """Make candidates until the search has no more, the time is up, or someone stops it; a fault ends it likewise."""

    def report(candidate: Candidate) -> None:
        stage.made.append(candidate)
        with stage.stops.held():
            stage.interim.show(run, stage.made)
        if run.clock.budget_s is not None:
            run.clock.reserve_s = run.ending.reserve_s(run.clock.budget_s, _held(run, stage.made) + 2)
        if len(stage.made) >= run.request.max_candidates:
            raise Enough

    try:
        if not stage.stops.asked:
            with stage.stops.making():
                _make_all(run, report)
                stage.hurried = run.clock.left_s <= 0
    except KeyboardInterrupt:
        run.say("result", "interrupted; finishing with what there is (press again to stop at once)")
    except Enough:
        run.say("candidate", f"{len(stage.made)} candidates were made, as many as asked for")
    except Exception as error:
        if not stage.made:
            raise
        run.say(
            "candidate",
            f"the search broke off ({type(error).__name__}: {error}); going on with what there is",
        )


def _make_all(run: Run, report: Report) -> None:
    if run.task.drawn:
        run.say(
            "candidate",
            "nothing is learnt from inputs drawn at random: no pruning, training or static ranges",
        )
    if isinstance(run.task.model, GraphModel):  # nothing of it is trained, so there is nothing to place
        make_from_graph(run, report)
        return
    # Closed before the finalists are timed: what runs beside them would be measured too.
    with closing(EXECUTORS[run.request.executor](run.task)) as executor:
        descend(replace(run, executor=executor), report)


def _held(run: Run, candidates: Sequence[Candidate]) -> int:
    """Return how many candidates hold the limit on the search data: the others are not measured where time is short."""
    return sum(c.quality is not None and run.drop(c) < run.margin for c in candidates)


def _outcome(best: Candidate | None, tried: tuple[Candidate, ...], *, hurried: bool) -> Outcome:
    fates = {candidate.fate for candidate in tried}
    if best is not None:
        return Outcome.IMPROVED
    if hurried:
        return Outcome.OUT_OF_TIME
    if Fate.OVER_LIMIT in fates:
        return Outcome.NOTHING_FITS
    # Where accuracy stood in the way of any candidate, a larger drop helps.
    stopped = fates & {Fate.MISSED, Fate.REFUSED}
    return (
        Outcome.NOTHING_HELD
        if stopped or not fates & {Fate.NOT_BETTER, Fate.CERTIFIED}
        else Outcome.NOTHING_BETTER
    )
