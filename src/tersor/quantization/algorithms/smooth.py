"""Move outliers of activations into weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from tersor.loading.inputs import Inputs
from tersor.quantization.algorithms.registry import rescaling
from tersor.quantization.grid import QSpec
from tersor.quantization.norms import move_scale, norm_groups, weights_of
from tersor.quantization.taps import values


@rescaling("smooth")
@dataclass(frozen=True, slots=True)
class SmoothQuant:
    """Divide feature j of each norm by `s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)`, multiply column j of its readers.

    Attributes:
        alpha: share of the difficulty that moves from the activation to the weights.

    Source: Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models,
    ICML 2023, equation 4.
    """

    alpha: float = 0.5

    def __call__(self, graph_module: fx.GraphModule, batches: Sequence[Inputs], weight: QSpec) -> int:
        """Rescale every norm; return how many."""
        del weight
        groups = norm_groups(graph_module.graph)
        for group in groups:
            (x,) = values(graph_module, [group.output.name], batches)
            reach = x.flatten(0, -2).abs().amax(0).clamp(min=1e-5)
            column = (
                torch.stack([w.abs().amax(0) for w in weights_of(graph_module, group)])
                .amax(0)
                .clamp(min=1e-5)
            )
            move_scale(graph_module, group, reach**self.alpha / column ** (1.0 - self.alpha))
        return len(groups)
