"""A QuantizedModel: the graph that trains and evaluates on integer grids."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from tersor.quantization.fake_quantize import FakeQuantize
from tersor.quantization.hardware import Scheme
from tersor.quantization.recipe import Recipe
from tersor.quantization.tables import FakeQuantizeTable


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
        integers: names of the sites that run in integers, and of the tables that are held in them.
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

    @contextmanager
    def rounding(self, chosen: Callable[[FakeQuantize | FakeQuantizeTable], bool]) -> Iterator[None]:
        """Round only with the quantizers that `chosen` accepts while the block runs; with none, nothing is rounded.

        Example:
            >>> import torch
            >>> from tersor.quantization.quantize import quantize
            >>> model, x = nn.Sequential(nn.Linear(4, 2)), torch.randn(8, 4)
            >>> small = quantize(model, (x,), [(x,)])
            >>> with small.rounding(lambda _: False):
            ...     torch.allclose(small(x), model(x))
            True
        """
        quantizers = [m for m in self.modules() if isinstance(m, FakeQuantize | FakeQuantizeTable)]
        before = [quantizer.enabled for quantizer in quantizers]
        try:
            for quantizer in quantizers:
                quantizer.enabled = chosen(quantizer)
            yield
        finally:
            for quantizer, enabled in zip(quantizers, before, strict=True):
                quantizer.enabled = enabled
