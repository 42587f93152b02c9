"""What each rank of a layer would keep: singular values, plain or weighted by the layer's inputs."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tersor.analysis.collect import input_moments
from tersor.analysis.uses import Use, tensors, uses
from tersor.errors import PlanError
from tersor.loading.inputs import Inputs
from tersor.loading.onnx.graph_model import refuse_graph
from tersor.loading.task import Batch

#: Share of the mean input energy added to every feature, so that features without any have an inverse.
_RIDGE = 1e-4


@dataclass(frozen=True, slots=True)
class Spectrum:
    r"""How the output energy of one layer spreads over ranks.

    Attributes:
        layer: path of the layer.
        outputs: rows of its weight.
        features: all other entries of a row: inputs, times kernel positions.
        values: singular values, falling. Of the weight; or, if inputs were seen, of $W L$ with
            $L L^T = E[x x^T]$, so that squares are shares of the expected output energy.
    """

    layer: str
    outputs: int
    features: int
    values: Float[Tensor, "ranks"]

    @property
    def break_even(self) -> int:
        """Return the largest rank with fewer multiply-adds and parameters than the layer."""
        return (self.outputs * self.features - 1) // (self.outputs + self.features)

    def lost(self, rank: int) -> float:
        """Return the share of the energy that a rank leaves out.

        Example:
            >>> Spectrum("fc", 2, 2, torch.tensor([3.0, 1.0])).lost(1)
            0.1
        """
        squares = self.values.double().square()
        return float(squares[rank:].sum() / squares.sum().clamp_min(torch.finfo(torch.float64).tiny))

    def rank_for(self, energy: float) -> int:
        """Return the smallest rank that keeps the share `energy` of the energy.

        Example:
            >>> Spectrum("fc", 2, 2, torch.tensor([3.0, 1.0])).rank_for(0.9)
            1
        """
        squares = self.values.double().square()
        kept = squares.cumsum(0) / squares.sum().clamp_min(torch.finfo(torch.float64).tiny)
        return min(int((kept < energy - 1e-12).sum()) + 1, len(squares))


def spectra(model: nn.Module, inputs: Inputs, *, batches: Iterable[Batch] = ()) -> tuple[Spectrum, ...]:
    """Return the spectrum of every layer that can be factorized, in the order of execution.

    These are `nn.Linear` and ungrouped `nn.Conv2d` whose weight is used once and by nothing else.

    Args:
        model: read only.
        inputs: example inputs, to see what runs.
        batches: calibration data; with it ranks are judged by what they do to outputs (activation-aware),
            without it by the weight alone.

    Raises:
        ModelError: if the model is an ONNX graph.
        PlanError: if the model has no such layer.

    Example:
        >>> [s.layer for s in spectra(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), (torch.zeros(1, 4),))]
        ['0']

    Source:
        Wang et al., SVD-LLM: Truncation-aware Singular Value Decomposition, ICLR 2025, section 3.1 (weighting
        by the Cholesky factor of E[x x^T]).
    """
    refuse_graph(model, "Factorizing")
    found = candidates(model, inputs)
    if not found:
        raise PlanError(
            "The model has no linear or ungrouped convolution layer of its own that could be factorized."
        )
    held = tensors(model)
    grams = input_moments(model, found, batches, gram=True)
    return tuple(
        Spectrum(
            layer_of(name),
            len(weight),
            weight[0].numel(),
            torch.linalg.svdvals(weighted(weight, grams.get(name))),
        )
        for name, weight in ((name, held[name].detach()) for name in found)
    )


def candidates(model: nn.Module, inputs: Inputs) -> tuple[str, ...]:
    """Return the names of the weights that can be factorized, in the order of execution."""
    by_name: dict[str, list[Use]] = {}
    for use in uses(model, inputs):
        by_name.setdefault(use.parameter, []).append(use)
    return tuple(name for name, seen in by_name.items() if len(seen) == 1 and _fits(model, name, seen[0]))


def layer_of(name: str) -> str:
    """Return the layer's path from its weight's name."""
    return name.rpartition(".")[0]


def _fits(model: nn.Module, name: str, use: Use) -> bool:
    if use.inputs is None or not name.endswith(".weight"):
        return False
    layer = model.get_submodule(layer_of(name))
    # The exact types: a subclass may compute something else with the same weight.
    return type(layer) in (nn.Linear, nn.Conv2d) and use.writes == (0,)


def weighted(weight: Tensor, gram: Tensor | None) -> Float[Tensor, "outputs features"]:
    """Return the weight as a matrix, in float64, times the Cholesky factor of its inputs' second moments."""
    matrix = weight.detach().flatten(1).double()
    return matrix if gram is None else matrix @ cholesky(gram)


def cholesky(gram: Tensor) -> Float[Tensor, "features features"]:
    """Return the lower Cholesky factor of a Gram matrix with a small ridge, in float64."""
    gram = gram.double()
    ridge = _RIDGE * gram.diagonal().mean().clamp_min(torch.finfo(torch.float32).tiny)
    return torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
