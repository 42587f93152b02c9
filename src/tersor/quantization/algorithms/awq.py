"""Protect the weights that meet large activations."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from tersor.loading.inputs import Inputs
from tersor.quantization.algorithms.registry import rescaling
from tersor.quantization.calibrate import rows_of
from tersor.quantization.grid import QSpec, decode, encode, place
from tersor.quantization.norms import move_scale, norm_groups, weights_of
from tersor.quantization.observer import Samples
from tersor.quantization.taps import values


@rescaling("awq")
@dataclass(frozen=True, slots=True)
class ActivationAware:
    """Scale columns of weights by `s_j = mean|X_j|^alpha`, alpha by search; the norm before them takes `1 / s_j`.

    For each norm: `argmin_alpha sum ||(Q(W s) / s - W) X||^2` over `alpha` in 0, 1/n, ..., 1. At 0 nothing changes.

    Attributes:
        candidates: n.
        rows: samples the error is measured on.

    Source: Lin et al., AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration, MLSys 2024,
    equations 4 and 5.
    """

    candidates: int = 10
    rows: int = 512

    def __call__(self, graph_module: fx.GraphModule, batches: Sequence[Inputs], weight: QSpec) -> int:
        """Rescale every norm where it helps; return how many."""
        changed = 0
        for group in norm_groups(graph_module.graph):
            (x,) = values(graph_module, [group.output.name], batches)
            flat = x.flatten(0, -2)
            scale = self._search(
                flat[:: max(1, len(flat) // self.rows)], weights_of(graph_module, group), weight
            )
            changed += bool((scale != 1).any())
            move_scale(graph_module, group, scale)
        return changed

    def _search(self, x: Tensor, weights: Sequence[Tensor], spec: QSpec) -> Tensor:
        mean = x.abs().mean(0).clamp(min=1e-4)
        best, least = torch.ones_like(mean), float("inf")
        for alpha in torch.linspace(0.0, 1.0, self.candidates + 1).tolist():
            scale = mean**alpha
            scale = scale / (scale.amax() * scale.amin()).sqrt()
            error = sum(float(((rounded(w * scale, spec) / scale - w) @ x.T).square().sum()) for w in weights)
            if error < least:
                best, least = scale, error
        return best


def rounded(weight: Tensor, spec: QSpec) -> Tensor:
    """Return a matrix on the grid that covers the whole range of each of its rows or blocks."""
    samples = Samples.of(rows_of(weight, spec))
    step, zero = place(samples.lo, samples.hi, spec)
    if spec.block:
        step, zero = step.reshape(len(weight), -1), zero.reshape(len(weight), -1)
    return decode(encode(weight, step, zero, spec), step, zero, spec)
