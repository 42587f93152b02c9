"""Quantize a captured graph by one recipe."""

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, fx

from tersor.errors import ArgumentError, PlanError
from tersor.loading.inputs import Inputs
from tersor.planning.plan import Plan, Quantize
from tersor.quantization.algorithms.registry import Refinement, refinements_of, rescalings_of
from tersor.quantization.attention import write_out
from tersor.quantization.calibrate import set_activation_grids, set_weight_grids
from tersor.quantization.hardware import Scheme
from tersor.quantization.insert import insert
from tersor.quantization.layers import Layer
from tersor.quantization.march import march
from tersor.quantization.model import QuantizedModel
from tersor.quantization.placement import EVERY_LAYER, Layout, candidates, lay_out, placement_for
from tersor.quantization.ranges.registry import range_rule
from tersor.quantization.recipe import Recipe
from tersor.quantization.tables import tables


def build(
    graph_module: fx.GraphModule, batches: Sequence[Inputs], scheme: Scheme, plan: Plan | None, recipe: Recipe
) -> QuantizedModel:
    """Quantize a captured graph by one recipe; `graph_module` is not changed."""
    rule = range_rule(recipe.ranges)
    quantized = copy.deepcopy(graph_module)
    if scheme.scores is not None:
        write_out(quantized)
    edits = _edits(quantized.graph, plan)
    held = set(tables(quantized.graph).values())
    _check_widths([edit for site, edit in edits.items() if site not in held], scheme)
    for rescale in rescalings_of(recipe):
        rescale(quantized, batches, scheme.weight)
    reference = copy.deepcopy(quantized)
    placement = placement_for(scheme.kind, scheme.runtime)
    layout = lay_out(quantized.graph, placement, _floats(quantized.graph, edits, scheme))
    if not layout.weighted:
        raise ArgumentError(
            f"No site of the model can run in integers: {'; '.join(set(layout.floats.values()))}."
        )
    codes = {site: scheme.weight_codes(edits[site].weight_bits) for site in layout.weighted.values()}
    insert(quantized, layout, activation=scheme.activation, weights=codes, scores=scheme.scores)
    set_weight_grids(quantized, rule)
    set_activation_grids(quantized, batches, rule)
    refine(quantized, reference, batches, refinements_of(recipe))
    return _as_model(quantized, scheme, recipe, layout)


def refine(
    quantized: fx.GraphModule,
    reference: fx.GraphModule,
    batches: Sequence[Inputs],
    refinements: Sequence[Refinement],
) -> None:
    """Apply `refinements` to each layer in the order of execution; each sees what was done before it."""

    def visit(layer: Layer, x: Tensor, y: Tensor) -> None:
        for refinement in refinements:
            refinement(layer, quantized, x, y)

    if refinements:
        march(quantized, reference, batches, visit)


def _as_model(graph_module: fx.GraphModule, scheme: Scheme, recipe: Recipe, layout: Layout) -> QuantizedModel:
    integers = tuple(dict.fromkeys((*layout.tables.values(), *layout.weighted.values())))
    return QuantizedModel(graph_module, scheme, recipe, integers=integers, floats=layout.floats).eval()


def names_of(graph: fx.Graph) -> tuple[str, ...]:
    """Return the sites of a graph in the order of execution."""
    found = candidates(graph, EVERY_LAYER) | tables(graph)
    return tuple(dict.fromkeys(found[node] for node in graph.nodes if node in found))


def _edits(graph: fx.Graph, plan: Plan | None) -> dict[str, Quantize]:
    names = names_of(graph)
    if not candidates(graph, EVERY_LAYER):
        raise ArgumentError(
            "No convolution or linear layer with a weight of its own: there is nothing to quantize."
        )
    if plan is None:
        return {name: Quantize(name) for name in names}
    edits = {edit.site: edit for edit in plan.of(Quantize)}
    if unknown := sorted(set(edits) - set(names)):
        raise PlanError(
            f"The model has no site {unknown[0]!r}. `sites` gives them: {', '.join(names[:8])}, ..."
        )
    if not edits:
        raise PlanError(
            "The plan has no Quantize edit, so nothing would change. Pass plan=None to quantize every site."
        )
    return edits


def _check_widths(edits: Sequence[Quantize], scheme: Scheme) -> None:
    widths = (0, 8) if scheme.kind == "weights" else (8,)
    for edit in edits:
        if edit.activation_bits not in widths or not 2 <= edit.weight_bits <= 8:
            raise PlanError(
                f"{edit} does not fit {scheme.kind} integers: weights take 2 to 8 bits, activations 8. Leave a site "
                "out of the plan to keep it in floating point, or take scheme='int8' or 'int4' for weights alone."
            )


def _floats(graph: fx.Graph, edits: Mapping[str, Quantize], scheme: Scheme) -> dict[str, str]:
    placement, names = placement_for(scheme.kind, scheme.runtime), names_of(graph)
    possible = {*candidates(graph, placement).values(), *tables(graph).values()}
    floats = {name: reason for name, reason in unsupported(graph).items() if name not in names}
    floats |= {name: "the plan leaves it in floating point" for name in names if name not in edits}
    reason = f"{scheme.kind} integers have no fast kernel for it"
    return floats | {name: reason for name in edits if name not in possible}


#: Operators with weights that no scheme here computes in integers.
_FLOAT_ONLY = frozenset(
    {
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "embedding",
    }
)


def unsupported(graph: fx.Graph) -> dict[str, str]:
    """Return the layers whose operator has no integer kernel, by the path of their weight, with the reason."""
    found: dict[str, str] = {}
    for node in graph.nodes:
        name = (
            str(node.target).split(".")[1] if node.op == "call_function" and "." in str(node.target) else ""
        )
        weights = [str(a.target) for a in node.all_input_nodes if a.op == "get_attr"]
        if name in _FLOAT_ONLY and weights:
            found[weights[0].rpartition(".")[0] or node.name] = f"no integer kernel computes {name}"
    return found
