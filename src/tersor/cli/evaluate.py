"""`tersor eval`: the quality of a model or of a file, on data."""

from tersor.cli.answer import Json, show
from tersor.cli.flags import NO_MODEL, ModelFlags
from tersor.cli.quality import Part


def evaluate(
    model: str,
    *,
    data: str,
    metric: str | None = None,
    split: Part = "search",
    threads: int = 1,
    loading: ModelFlags = NO_MODEL,
    json: Json = False,
) -> int:
    """Take the metric of MODEL over one part of the data.

    For example, `tersor eval out --data mypkg.data:splits` evaluates the file that `tersor optimize -o out` wrote.

    Args:
        model: a model as for `tersor optimize`, an `.onnx` or OpenVINO `.xml` file, or a folder that tersor wrote.
        data: as for `tersor optimize`.
        metric: as for `tersor optimize`.
        split: which part; reading `certification` here leaves no line in the ledger, and a model that is chosen by it
            cannot be certified on it.
        threads: threads of the runtime, for files.
        loading: how to open the model.
        json: print JSON.
    """
    from tersor.cli.opened import as_module, find_artefact, is_file, load
    from tersor.cli.quality import judge
    from tersor.cli.working import working
    from tersor.loading.build import build_task
    from tersor.loading.split import HARMLESS

    file = is_file(model)
    network = as_module(find_artefact(model), threads=threads) if file else load(model, loading)
    built = build_task(network, data, metric=metric, shares=HARMLESS)
    with working(f"evaluating on the {split} part"):
        found = judge(built.task.model, built.task, split)
    values = {
        "model": model,
        "metric": found.metric,
        "value": found.value,
        "half_interval": found.spread,
        "samples": found.samples,
        "split": split,
    }
    show(values, [*built.notes.words(), f"{split:<8}{found.words()}"], json=json)
    return 0
