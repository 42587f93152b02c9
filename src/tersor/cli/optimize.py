"""`tersor optimize`: the command-line form of `tersor.optimize`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tersor.cli.flags import ModelFlags, SearchFlags, arguments_of

_NO_FLAGS, _NO_MODEL = SearchFlags(), ModelFlags()


def optimize(
    model: str,
    *,
    data: str,
    max_drop: str,
    output: Annotated[Path, Parameter(alias="-o")] = Path("out"),
    search: SearchFlags = _NO_FLAGS,
    loading: ModelFlags = _NO_MODEL,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Find the fastest or smallest version of MODEL that holds the accuracy you refuse to lose.

    The same words as `tersor.optimize` in Python. Exit status: 0 found, 3 nothing better held (the original is
    exported, with the reason), 2 wrong usage, 1 error, 130 interrupted (the best so far is saved).

    Args:
        model: `package.module:factory`, `file.py:factory`, `timm:NAME`, `hf:NAME` or a saved folder.
        data: `module:function`, `file.py:function`, `npz:FILE`, `csv:FILE?target=COLUMN`, `sklearn:digits`, ...
        max_drop: largest loss: 1% is relative to the original, 0.01 is in the unit of the metric.
        output: folder to write; replaced only if tersor wrote it.
        search: what to look for.
        loading: how to open the model.
        json: print the report as JSON on standard output.
    """
    from tersor.reporting.folder import refuse_foreign

    refuse_foreign(output.absolute())

    from tersor.cli.progress import Display
    from tersor.cli.show import carried_ledger, finish
    from tersor.loading.model import load_model
    from tersor.search.optimize import optimize as run

    with Display() as display:
        network = load_model(
            model,
            weights=loading.weights,
            arguments=arguments_of(loading),
            allow_code_execution=loading.allow_code_execution,
        )
        result = run(
            network,
            data,
            max_drop=max_drop,
            metric=search.metric,
            target=search.target,
            goal=search.goal,
            budget=search.budget,
            confidence=search.confidence,
            methods=search.methods,
            leave=search.leave,
            threads=search.threads,
            batch=search.batch,
            seed=search.seed,
            ledger=search.ledger or carried_ledger(output),
            on_event=display,
        )
    return finish(result, output, command=shlex.join(["tersor", *sys.argv[1:]]), json=json)
