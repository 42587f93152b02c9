"""What a search would do, said in seconds: what can be pruned, and what the certification samples can show."""

from tersor.analysis.facts import facts
from tersor.certification.planner import smallest_margin
from tersor.exporting.export import RUNTIMES
from tersor.graph.trace import trace
from tersor.loading.limit import parse_drop
from tersor.loading.task import Task

#: Share of samples on which a compressed network usually answers differently; only for a first estimate.
_LIKELY_DISAGREEMENT = 0.02


def preview(task: Task, max_drop: str | float) -> tuple[str, ...]:
    """Return lines on the model's size, its groups, the runtimes at hand and the smallest margin.

    Args:
        task: model and data, bound.
        max_drop: largest loss, as in `tersor.optimize`.
    """
    costs = facts(task.model, task.inputs)
    groups = trace(task.model, task.inputs).groups
    prunable = [group for group in groups if group.prunable]
    kinds = ", ".join(sorted({group.kind for group in prunable})) or "none"
    ready = ", ".join(name for name, kind in RUNTIMES.items() if not kind.missing())
    lines = [
        f"model   {costs.parameters:,} parameters, {costs.macs:,} multiply-adds a sample",
        f"groups  {len(prunable)} of {len(groups)} can be pruned ({kinds})",
        f"runtime {ready}",
        f"limit   a drop of {parse_drop(max_drop)}",
    ]
    if task.metric.scores is not None:
        least = smallest_margin(len(task.certification), _LIKELY_DISAGREEMENT)
        lines.append(
            f"sealed  {len(task.certification):,} samples can certify a drop of about {least:.2g} or more, if the "
            "models differ on 2 samples in 100"
        )
    return tuple(lines)
