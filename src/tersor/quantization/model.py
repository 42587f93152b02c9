"""A QuantizedModel: the graph that trains and evaluates on integer grids."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from tersor.quantization.hardware import Scheme
from tersor.quantization.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Attempt:
    """One recipe that was tried.

    Attributes:
        recipe: what was done.
        sqnr_db: signal to quantization noise of the outputs on samples held out of calibration, in decibels.
        wall_s: time it took, in seconds.
    """

    recipe: Recipe
    sqnr_db: float
    wall_s: float


class QuantizedModel(nn.Module):
    """A model that evaluates and trains with the arithmetic of its integer file.

    Attributes:
        graph_module: the graph, with a FakeQuantize on every edge that carries integers.
        scheme: the codes, and why these.
        recipe: how the grids and codes were chosen.
        integers: names of the sites that run in integers.
        floats: names of the sites that stay in floating point, with the reason.
        attempts: the recipes tried, when the recipe was chosen by measurement.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        scheme: Scheme,
        recipe: Recipe,
        *,
        integers: tuple[str, ...],
        floats: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.scheme = scheme
        self.recipe = recipe
        self.integers = integers
        self.floats = dict(floats)
        self.attempts: tuple[Attempt, ...] = ()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model, called as the original is."""
        return self.graph_module(*args, **kwargs)
