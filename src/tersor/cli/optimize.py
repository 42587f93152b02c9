"""`tersor optimize`: the command-line form of `tersor.optimize`."""

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from tersor.cli.config import used_words
from tersor.cli.flags import ModelFlags, SearchFlags, arguments_of, limits_of

if TYPE_CHECKING:
    from torch import nn

    from tersor.search.request import Options

_NO_FLAGS, _NO_MODEL = SearchFlags(), ModelFlags()


def optimize(
    model: str,
    *,
    data: str | None = None,
    max_drop: str,
    output: Annotated[Path, Parameter(alias="-o")] = Path("out"),
    search: SearchFlags = _NO_FLAGS,
    loading: ModelFlags = _NO_MODEL,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Find the fastest or smallest version of MODEL that holds the accuracy you refuse to lose.

    The same words as `tersor.optimize` in Python. Exit status: 0 found, 3 nothing better held (the original is
    exported, with the reason), 2 wrong usage, 1 error, 130 interrupted (the best so far is saved). The output folder
    holds the best so far from the start; after a kill, `tersor resume OUT` goes on.

    Args:
        model: `package.module:factory`, `file.py:factory`, `timm:NAME`, `hf:NAME` or a saved folder.
        data: `module:function`, `file.py:function`, `npz:FILE`, `csv:FILE?target=COLUMN`, `sklearn:digits`, ...; left
            out, or `random:3x224x224`, inputs are drawn at random: nothing is learnt from them, and the certificate is
            about such inputs only.
        max_drop: largest loss: 1% is relative to the original, 0.01 is in the unit of the metric.
        output: folder to write from the start; replaced only if tersor wrote it.
        search: what to look for.
        loading: how to open the model.
        json: print the report as JSON on standard output.
    """
    begun_s = time.monotonic()
    from tersor.reporting.folder import refuse_foreign

    refuse_foreign(output.absolute())

    from tersor.cli.progress import Display
    from tersor.cli.show import finish
    from tersor.loading.model import load_model
    from tersor.search.optimize import optimize as run
    from tersor.search.request import Origin

    origin = Origin(model, _text(loading.weights), arguments_of(loading))
    options = _options(search)
    with Display() as display:
        network = load_model(
            model,
            weights=loading.weights,
            arguments=origin.arguments,
            allow_code_execution=loading.allow_code_execution,
        )
        if search.dry_run:
            return _say_plan(network, data, max_drop, search, options)
        command = shlex.join(["tersor", *sys.argv[1:]])
        options |= {"output": output, "origin": origin, "command": command, "config": used_words()}
        options |= {"lead_s": time.monotonic() - begun_s, "on_event": display}
        result = run(
            network,
            data,
            max_drop=max_drop,
            metric=search.metric,
            target=search.target,
            goal=search.goal,
            budget=search.budget,
            **options,
        )
    return finish(result, output, command=command, json=json, examples=search.examples)


def _options(search: SearchFlags) -> "Options":
    """Return the less common words that were given."""
    names = ("confidence", "methods", "leave", "threads", "batch", "seed", "ledger")
    names += ("max_candidates", "max_memory", "executor", "leave_out_copies")
    given = {name: getattr(search, name) for name in names}
    given["limits"] = limits_of(search)
    return cast("Options", {name: value for name, value in given.items() if value not in (None, ())})


def _text(path: Path | None) -> str:
    return "" if path is None else str(path.absolute())


def _say_plan(
    network: "nn.Module", data: str | None, max_drop: str, search: SearchFlags, options: "Options"
) -> int:
    """Print what a search would do."""
    from tersor.loading.build import build_task
    from tersor.loading.split import Shares
    from tersor.search.preview import outline
    from tersor.search.request import make_request
    from tersor.search.unlearned import without_learning

    request = make_request(max_drop, search.target, search.goal, search.budget, options)
    shares = Shares(leave_out_copies=search.leave_out_copies)
    built = build_task(network, data, metric=search.metric, shares=shares, seed=request.seed)
    request = without_learning(request, options.get("methods"), built.task)
    for line in (*built.notes.words(), *outline(built.task, request)):
        sys.stdout.write(line + "\n")
    return 0
