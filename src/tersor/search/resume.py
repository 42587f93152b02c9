"""`tersor.resume`: go on with a search that was stopped, from the folder that it left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from torch import nn

from tersor.errors import ArgumentError
from tersor.loading.limit import parse_budget
from tersor.loading.metric import Metric
from tersor.loading.model import load_model
from tersor.loading.references import is_entry_point
from tersor.reporting.remains import restore_folder
from tersor.search.asked import Asked, read_asked
from tersor.search.conduct import REPORT, Order, carry_out
from tersor.search.events import Listener, silent
from tersor.search.interim import SEARCH
from tersor.search.request import Options, make_request
from tersor.search.result import Result


def resume(
    folder: str | Path,
    model: nn.Module | None = None,
    data: object = None,
    *,
    metric: str | Callable[..., Any] | Metric | None = None,
    budget: str | float | None = None,
    allow_code_execution: bool = False,
    on_event: Listener = silent,
) -> Result:
    """Go on with the search in `folder`, where it was stopped, killed or ran out of memory.

    Candidates that were made are taken from the folder. What was being made is made again, once; finalists that were
    frozen stay as they are, and their test is repeated as the same question, which costs no further attempt.

    Args:
        folder: the `output` of `tersor.optimize`.
        model: the same model, if it was given as an object; else it is loaded from where it came.
        data: the same data, likewise.
        metric: the same metric, if it was a function.
        budget: time for what is left; None takes what is left of the first budget.
        allow_code_execution: allow to import model and data that are named in a folder outside the working directory,
            and to open files that run code when loaded.
        on_event: a listener.

    Returns:
        The Result, as from `tersor.optimize`.

    Raises:
        FolderError: if there is no search in the folder.
        ArgumentError: if something is needed that the folder cannot hold.
        DataError: if model or data are not those that the search began with.

    Example:
        `tersor.resume("out").save("out")`
    """
    output = restore_folder(Path(folder).expanduser().absolute())
    asked = read_asked(output / SEARCH)
    given = {"model": model, "data": data, "metric": metric}
    missing = [name for name in asked.needed if given.get(name) is None]
    if missing:
        raise ArgumentError(
            f"This search was given {' and '.join(missing)} as Python objects, which a folder cannot hold. Give them "
            "again: `tersor.resume(folder, model, data, metric=...)`."
        )
    _check_trust(output, asked, allow_code_execution)
    loaded = _load(asked, allow_code_execution) if model is None else model
    # What was read back are the options that `ask` wrote.
    options = cast("Options", {**asked.options, "output": output, "on_event": on_event})
    request = make_request(asked.max_drop, asked.targets, asked.goal, asked.budget or None, options)
    order = Order(
        loaded,
        asked.data if data is None else data,
        metric or asked.metric or None,
        request,
        options,
        asked,
        resumed=True,
        extra_s=None if budget is None else parse_budget(budget),
    )
    return carry_out(order)


def _check_trust(output: Path, asked: Asked, allowed: bool) -> None:
    named = [name for name in (asked.origin.model if asked.origin else "", asked.data, asked.metric) if name]
    code = [name for name in named if is_entry_point(name)]
    if code and not allowed and not output.resolve().is_relative_to(Path.cwd()):
        raise ArgumentError(
            f"{output} names code to run ({code[0]}) and lies outside of the working directory. If it is yours, allow "
            "code execution, or go on from the directory in which the search was begun."
        )


def _load(asked: Asked, allow_code_execution: bool) -> nn.Module:
    assert asked.origin is not None
    return load_model(
        asked.origin.model,
        weights=asked.origin.weights or None,
        arguments=asked.origin.arguments,
        allow_code_execution=allow_code_execution,
    )


def has_ended(folder: str | Path) -> bool:
    """Whether the search in `folder` came to its end and wrote its report."""
    output = restore_folder(Path(folder).expanduser().absolute())
    return (output / REPORT).exists()
