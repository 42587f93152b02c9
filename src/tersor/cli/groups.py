"""`tersor groups`: what can be pruned in a model, and what cannot and why."""

from tersor.cli.answer import Json, show
from tersor.cli.example import NO_EXAMPLE, ExampleFlags
from tersor.cli.flags import NO_MODEL, ModelFlags


def groups(
    model: str,
    *,
    example: ExampleFlags = NO_EXAMPLE,
    loading: ModelFlags = NO_MODEL,
    json: Json = False,
) -> int:
    """Print the prunable groups of MODEL: channels, heads and features that go together.

    For example, `tersor groups timm:resnet18 --input 2x3x224x224`

    Args:
        model: as for `tersor optimize`.
        example: what the model is run on.
        loading: how to open the model.
        json: print JSON.
    """
    from tersor.cli.example import built_or_random
    from tersor.cli.opened import load
    from tersor.cli.working import working
    from tersor.graph.trace import trace

    network = load(model, loading).eval()
    with working("tracing"):
        graph = trace(network, built_or_random(network, example)[1])
    values = {
        "multiply_adds": graph.macs(),
        "groups": [
            {"name": g.name, "kind": g.kind, "units": g.size, "prunable": g.prunable, "reason": g.reason}
            for g in graph.groups
        ],
        "not_understood": dict(graph.opaque),
    }
    show(values, graph.table().splitlines(), json=json)
    return 0
