"""The catalogue of rescalings and refinements."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from torch import Tensor, fx, nn

from tersor._check import one_of
from tersor.loading.inputs import Inputs
from tersor.quantization.grid import QSpec
from tersor.quantization.layers import Layer
from tersor.quantization.recipe import Recipe


class Rescaling(Protocol):
    """Changes parameters so that the model computes the same and rounds better."""

    def __call__(self, graph_module: fx.GraphModule, batches: Sequence[Inputs], weight: QSpec) -> int:
        """Rescale in place; return how many places were changed."""
        ...


class Refinement(Protocol):
    """Changes a layer's parameters so that it computes what the reference computes."""

    def __call__(self, layer: Layer, root: nn.Module, x: Tensor, y: Tensor) -> bool:
        """Refine one layer in place.

        Args:
            layer: the layer.
            root: what owns its parameters.
            x: its input in the quantized model, rounded where the model rounds it.
            y: its output in the reference.

        Returns:
            Whether something changed for the better.
        """
        ...


RESCALINGS: dict[str, Callable[[], Rescaling]] = {}
REFINEMENTS: dict[str, Callable[[], Refinement]] = {}

R = TypeVar("R", bound=Callable[[], Rescaling])
F = TypeVar("F", bound=Callable[[], Refinement])


def rescaling(name: str) -> Callable[[R], R]:
    """Enter a rescaling in `RESCALINGS`."""

    def enter(kind: R) -> R:
        RESCALINGS[name] = kind
        return kind

    return enter


def refinement(name: str) -> Callable[[F], F]:
    """Enter a refinement in `REFINEMENTS`."""

    def enter(kind: F) -> F:
        REFINEMENTS[name] = kind
        return kind

    return enter


def rescalings_of(recipe: Recipe) -> list[Rescaling]:
    """Return the rescalings of `recipe`, with their default settings.

    Raises:
        ArgumentError: if one does not exist.
    """
    return [RESCALINGS[one_of("before", name, RESCALINGS)]() for name in recipe.before]


def refinements_of(recipe: Recipe) -> list[Refinement]:
    """Return the refinements of `recipe`, with their default settings.

    Raises:
        ArgumentError: if one does not exist.
    """
    return [REFINEMENTS[one_of("after", name, REFINEMENTS)]() for name in recipe.after]
