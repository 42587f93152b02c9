"""`tersor check`: how model and data go together, in seconds, without a search."""

from typing import Annotated

from cyclopts import Parameter

from tersor.cli.answer import Json, show
from tersor.cli.flags import NO_MODEL, ModelFlags, arguments_of


def check(
    model: str,
    *,
    data: str,
    max_drop: str = "1%",
    metric: str | None = None,
    leave_out_copies: Annotated[bool, Parameter(negative=())] = False,
    loading: ModelFlags = NO_MODEL,
    json: Json = False,
) -> int:
    """Show how a batch is bound to MODEL, the splits, the metric, and what can be pruned and certified.

    For example, `tersor check mypkg.models:build --data mypkg.data:splits`

    Args:
        model: as for `tersor optimize`.
        data: as for `tersor optimize`.
        max_drop: largest loss, to say whether the certification samples would do.
        metric: as for `tersor optimize`.
        leave_out_copies: as for `tersor optimize`.
        loading: how to open the model.
        json: print JSON.
    """
    from tersor.loading.build import build_task
    from tersor.loading.model import load_model
    from tersor.loading.split import Shares
    from tersor.search.preview import preview

    network = load_model(
        model,
        weights=loading.weights,
        arguments=arguments_of(loading),
        allow_code_execution=loading.allow_code_execution,
    )
    built = build_task(network, data, metric=metric, shares=Shares(leave_out_copies=leave_out_copies))
    lines = (*built.notes.words(), *preview(built.task, max_drop))
    pairs = [(line[:8].strip(), line[8:]) for line in lines]
    values = {title: [text for name, text in pairs if name == title] for title, _ in pairs}
    show(values, lines, json=json)
    return 0
