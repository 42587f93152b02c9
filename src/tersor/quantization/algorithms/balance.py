"""Move outliers of activations into weights, also where no norm can take the scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from tersor.loading.inputs import Inputs
from tersor.quantization.algorithms.awq import rounded
from tersor.quantization.algorithms.registry import rescaling
from tersor.quantization.grid import QSpec, decode, encode, place
from tersor.quantization.norms import move_scale, token_groups, weights_of
from tersor.quantization.taps import values

#: What activations are rounded to while a scale is searched: one step for the tensor.
_CODES = QSpec(0, 255)


@rescaling("balance")
@dataclass(frozen=True, slots=True)
class Balance:
    """Divide feature j of what layers read by `s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)`, alpha by search.

    For each tensor over tokens that linear layers read: `argmin_alpha sum ||Q(X / s) Q(s W) - X W||^2` over `alpha`
    in 0.5, 0.6, ..., 1. The norm before the layers takes `1 / s` where they alone read it; elsewhere, as after an
    activation or a norm that the stream reads too, the file has one more product per tensor. Where these products
    stand does not depend on the samples, so that a model can be made again from few.

    Attributes:
        rows: samples the error is measured on, of each batch.
        worth: largest error, as a share of the error without a scale, at which a tensor is rescaled.

    Source: Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models,
    ICML 2023, equation 4; the search is that of AWQ.
    """

    rows: int = 128
    worth: float = 0.8

    def __call__(self, graph_module: fx.GraphModule, batches: Sequence[Inputs], weight: QSpec) -> int:
        """Rescale where it helps; return for how many tensors it did."""
        groups, changed = token_groups(graph_module.graph), 0
        seen = _look(graph_module, [group.output.name for group in groups], batches, self.rows)
        for group, x in zip(groups, seen, strict=True):
            scale = self._search(x, weights_of(graph_module, group), weight)
            move_scale(graph_module, group, scale)
            changed += bool((scale != 1).any())
        return changed

    def _search(self, x: Tensor, weights: Sequence[Tensor], spec: QSpec) -> Tensor:
        """Return the best scale, ones where none is worth it; the last two rows of `x` are its extremes."""
        reach = x.abs().amax(0).clamp(min=1e-5)
        column = torch.stack([w.abs().amax(0) for w in weights]).amax(0).clamp(min=1e-5)
        best = torch.ones_like(reach)
        least = self.worth * _error(x, weights, best, spec)
        for alpha in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
            scale = reach**alpha / column ** (1.0 - alpha)
            scale = scale / scale.log().mean().exp()
            error = _error(x, weights, scale, spec)
            if error < least:
                best, least = scale, error
        return best


def _error(x: Tensor, weights: Sequence[Tensor], scale: Tensor, spec: QSpec) -> float:
    """Return the squared error of the products of all rows but the last two, which are there for the range."""
    small = x / scale
    step, zero = place(small.amin(), small.amax(), _CODES)
    small, exact = decode(encode(small[:-2], step, zero, _CODES), step, zero, _CODES), x[:-2]
    return sum(float((small @ rounded(w * scale, spec).T - exact @ w.T).square().sum()) for w in weights)


def _look(
    graph_module: fx.GraphModule, names: Sequence[str], batches: Sequence[Inputs], rows: int
) -> list[Tensor]:
    """Return for each node some of its rows, and as the last two the least and largest value of each feature."""
    kept: list[list[Tensor]] = [[] for _ in names]
    ends: list[list[Tensor]] = [[] for _ in names]
    for batch in batches:  # one by one: sentences of one batch may be longer than those of another
        for i, x in enumerate(values(graph_module, names, [batch])):
            flat = x.flatten(0, -2)
            kept[i].append(flat[:: max(1, len(flat) // rows)].clone())
            ends[i] += [flat.amin(0), flat.amax(0)]
    return [
        torch.cat([*some, _extremes(torch.stack(all_ends))])
        for some, all_ends in zip(kept, ends, strict=True)
    ]


def _extremes(rows: Tensor) -> Tensor:
    return torch.stack([rows.amin(0), rows.amax(0)])
