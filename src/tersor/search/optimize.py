"""`tersor.optimize`: a trained model, data and the drop that is allowed come in, a Result goes out."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from tersor.certification.ledger import Ledger
from tersor.certification.seal import Seal
from tersor.errors import ArgumentError
from tersor.loading.build import build_task
from tersor.loading.metric import Metric
from tersor.loading.model import load_model
from tersor.search.answer import confirm, in_order, measured
from tersor.search.baseline import start
from tersor.search.candidate import Candidate
from tersor.search.clock import Clock
from tersor.search.descend import descend
from tersor.search.finalists import choose_finalists
from tersor.search.outcome import Fate, Outcome
from tersor.search.request import Options, make_request
from tersor.search.result import Result
from tersor.search.run import Run
from tersor.search.sealed import NOT_TRIED, check_samples, try_finalists


def optimize(
    model: nn.Module | str,
    data: object,
    *,
    max_drop: str | float,
    metric: str | Callable[..., Any] | Metric | None = None,
    target: str = "onnxruntime",
    goal: str = "latency",
    budget: str | float | None = None,
    **options: Unpack[Options],
) -> Result:
    """Return the fastest or smallest version of `model` that still holds the accuracy you refuse to lose.

    Channels, heads and features are pruned step by step, each network is recovered by distillation from the
    original, and each gets a twin in 8-bit integers. Every candidate is exported, evaluated and measured in the
    target runtime against the original in its best free runtime. Finalists frozen on the search data are tested on
    sealed data, from the safest to the boldest; the best that passes is the answer. The model is not changed.

    Args:
        model: a module, or a reference such as `package.module:factory`.
        data: one data set (a DataLoader, a Dataset, a pair of arrays; it is split by a hash of its content), explicit
            splits as a mapping, or a reference such as `npz:digits.npz`.
        max_drop: largest loss: `"1%"` is relative to the original, `0.01` is in the unit of the metric.
        metric: a name, a callable, or None to infer it from the labels.
        target: runtime that the file is for.
        goal: `latency`, `throughput`, `size` or `memory`.
        budget: time for all of it, such as `"30m"` or seconds; None takes a fixed, moderate effort.
        **options: `confidence` (0.95), `methods` (`prune`, `quantize`, `distill`), `leave` (patterns of layer names
            to leave alone), `threads` (1), `batch` (samples per call when measuring), `seed` (0), `loss`,
            `ledger` (file that counts the attempts on this certification data), `on_event` (a listener).

    Returns:
        The Result. It is never None: when nothing better holds, it is the original, exported, with the reason.

    Raises:
        ArgumentError: if a word is not understood.
        ModelError: if the model cannot be run.
        DataError: if the data does not fit, or is too small for the margin; it says how many samples would do.
        ExportError: if the original cannot be exported for the target.

    Example:
        `tersor.optimize(model, (images, labels), max_drop="1%", budget="10m").save("out")`
    """
    request = make_request(max_drop, target, goal, budget, options)
    clock = Clock(request.budget_s)
    torch.manual_seed(request.seed)
    loaded = load_model(model) if isinstance(model, str) else model
    built = build_task(loaded, data, metric=metric, loss=options.get("loss"), seed=request.seed)
    if built.task.metric.of_model is not None:
        raise ArgumentError(
            f"{built.task.metric.name} is a function of the model and cannot be certified on sealed samples. Give a "
            "metric as a function of (predictions, targets)."
        )
    work = tempfile.TemporaryDirectory(prefix="tersor-")
    ledger = Ledger(options.get("ledger") or Path(work.name) / "ledger.jsonl")
    seal = Seal(built.task.certification, ledger, labelled=built.task.kind != "fidelity")
    run = start(built, request, clock, Path(work.name))
    check_samples(run, seal)
    return _search(run, seal, built.notes.words(), work)


def _search(run: Run, seal: Seal, notes: tuple[str, ...], work: tempfile.TemporaryDirectory[str]) -> Result:
    candidates: list[Candidate] = []
    interrupted = False
    try:
        descend(run, candidates.append)
    except KeyboardInterrupt:
        interrupted = True
        run.say("result", "interrupted; finishing with what there is (press again to stop at once)")
    finalists, others = choose_finalists(run, measured(run, candidates))
    sealed = try_finalists(run, finalists, seal) if finalists else NOT_TRIED
    best = confirm(run, sealed.passed[-1]) if sealed.passed else None
    tried = in_order(candidates, (*others, *sealed.tested), best)
    outcome = Outcome.INTERRUPTED if interrupted else _outcome(best, tried)
    result = Result(run, tried, best, sealed.certification, outcome, notes, work)
    run.say("result", result.sentence)
    return result


def _outcome(best: Candidate | None, tried: tuple[Candidate, ...]) -> Outcome:
    if best is not None:
        return Outcome.IMPROVED
    held = any(candidate.fate in (Fate.NOT_BETTER, Fate.CERTIFIED) for candidate in tried)
    return Outcome.NOTHING_BETTER if held else Outcome.NOTHING_HELD
