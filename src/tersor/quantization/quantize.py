"""From a trained model and calibration data to a model that computes on integer grids."""

from collections.abc import Iterable

from torch import fx, nn

from tersor._check import positive
from tersor.errors import ArgumentError
from tersor.loading.inputs import Inputs, as_inputs
from tersor.loading.onnx.graph_model import GraphModel
from tersor.planning.plan import Plan
from tersor.quantization.build import build, names_of
from tersor.quantization.calibrate import check_calibration
from tersor.quantization.capture import capture
from tersor.quantization.choose import choose
from tersor.quantization.hardware import Scheme, detect, scheme_for
from tersor.quantization.model import QuantizedModel
from tersor.quantization.onnx_graph import quantize_as_asked
from tersor.quantization.recipe import Recipe
from tersor.quantization.schemes import ranked


def sites(model: nn.Module, inputs: Inputs) -> tuple[str, ...]:
    """Return the names of the layers of `model` that can run in integers, in the order of execution.

    Example:
        >>> import torch
        >>> sites(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (torch.randn(2, 4),))
        ('0', '2')
    """
    return names_of(capture(model, inputs).graph)


def quantize(
    model: nn.Module,
    inputs: Inputs,
    calibration: Iterable[Inputs],
    *,
    scheme: Scheme | str = "auto",
    plan: Plan | None = None,
    recipe: Recipe | str = "quick",
    budget_s: float = 120.0,
) -> QuantizedModel | GraphModel:
    """Return a new model that computes on the integer grids that a runtime will compute on.

    Weights are rounded to `step * codes` with a step per output channel or block, activations with a step per
    tensor. The result trains: its steps are parameters.

    Tables of embeddings with 2^18 entries or more are held in 8-bit codes with a step to each row, whatever the scheme:
    a look-up takes codes and step: a quarter of the bytes, and no time that can be measured in a transformer.
    Their steps do not train.

    Args:
        model: the trained model; not changed.
        inputs: example inputs, as the model is called.
        calibration: batches of inputs, unlabelled; a few hundred samples are enough.
        scheme: a `Scheme`, its kind (`static`, `dynamic`, `int8`, `int4`), or `auto`: the first that `schemes` gives,
            on the codes that this processor multiplies exactly.
        plan: which sites run in integers, by `Quantize` edits; all of them when None.
        recipe: a `Recipe`, `quick` (ranges of least squared error) or `auto` (the recipe of least measured output
            error on calibration data that it was not fitted on).
        budget_s: time that `auto` may spend on trying recipes, in seconds.

    Returns:
        The quantized model, in evaluation mode; of an ONNX graph that does not convert to torch, the graph as ONNX
        Runtime's own quantizer rounds it.

    Raises:
        ModelError: if `torch.export` does not accept the model.
        DataError: if the calibration data is empty, not finite, or not what the model is called with.
        PlanError: if the plan names a site that the model does not have.
        ArgumentError: if the model has no layer to quantize.

    Example:
        >>> import torch
        >>> model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(64, 4)
        >>> small = quantize(model, (x[:2],), [(x,)], scheme="static")
        >>> small.integers, small(x).shape
        (('0', '2'), torch.Size([64, 2]))

    Source: Krishnamoorthi, Quantizing deep convolutional networks for efficient inference, arXiv 1806.08342.
    """
    positive("budget_s", budget_s)
    inputs = as_inputs(inputs)
    batches = check_calibration(calibration, inputs)
    if isinstance(model, GraphModel):
        return quantize_as_asked(model, batches, scheme, plan, recipe)
    return quantize_module(model, inputs, batches, scheme=scheme, plan=plan, recipe=recipe, budget_s=budget_s)


def quantize_module(
    model: nn.Module,
    inputs: Inputs,
    batches: list[Inputs],
    *,
    scheme: Scheme | str = "auto",
    plan: Plan | None = None,
    recipe: Recipe | str = "quick",
    budget_s: float = 120.0,
) -> QuantizedModel:
    """Return what `quantize` makes of a module of torch, from checked inputs and calibration batches."""
    graph_module = capture(model, inputs)
    chosen = _scheme(graph_module, scheme)
    if recipe == "auto":
        return choose(graph_module, batches, chosen, plan, budget_s=budget_s)
    if isinstance(recipe, str) and recipe != "quick":
        raise ArgumentError(f"`recipe` is a Recipe, 'quick' or 'auto', got {recipe!r}.")
    return build(graph_module, batches, chosen, plan, Recipe() if isinstance(recipe, str) else recipe)


def _scheme(graph_module: fx.GraphModule, scheme: Scheme | str) -> Scheme:
    if isinstance(scheme, Scheme):
        return scheme
    kinds = ranked(graph_module) or ("static",)
    return scheme_for(detect(), kinds[0] if scheme == "auto" else scheme)
