"""The Keras layers for sequences: recurrent ones and attention."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tersor.errors import ModelError
from tersor.loading.keras.rules import Modules, Rule, Shape, arrays, filled


class Recurrent(nn.Module):
    """A recurrent layer that gives all its states, or the last one."""

    def __init__(self, cell: nn.LSTM | nn.GRU, every: bool) -> None:
        super().__init__()
        self.cell, self.every = cell, every

    def forward(self, x: Tensor) -> Tensor:
        """Return states (samples, positions, features), or the last ones (samples, features)."""
        states, _ = self.cell(x)
        if self.every:
            return states
        if not self.cell.bidirectional:
            return states[:, -1]
        forward, backward = states.chunk(2, dim=-1)
        return torch.cat([forward[:, -1], backward[:, 0]], dim=-1)


def _lstm_tensors(found: Mapping[str, Tensor], end: str) -> dict[str, Tensor]:
    """Keras and torch both order the gates input, forget, cell, output; torch adds a second bias."""
    units = found["recurrent_kernel"].shape[0]
    bias = found.get("bias", torch.zeros(4 * units))
    return {
        f"weight_ih_l0{end}": found["kernel"].T,
        f"weight_hh_l0{end}": found["recurrent_kernel"].T,
        f"bias_ih_l0{end}": bias,
        f"bias_hh_l0{end}": torch.zeros_like(bias),
    }


def _gru_tensors(found: Mapping[str, Tensor], end: str) -> dict[str, Tensor]:
    """Keras orders the gates update, reset, new; torch reset, update, new."""
    units = found["recurrent_kernel"].shape[0]
    bias = found.get("bias", torch.zeros(2, 3 * units))
    swap = lambda t: torch.cat([t[units : 2 * units], t[:units], t[2 * units :]])
    return {
        f"weight_ih_l0{end}": swap(found["kernel"].T),
        f"weight_hh_l0{end}": swap(found["recurrent_kernel"].T),
        f"bias_ih_l0{end}": swap(bias[0]),
        f"bias_hh_l0{end}": swap(bias[1]),
    }


_CELLS = {"LSTM": (nn.LSTM, _lstm_tensors), "GRU": (nn.GRU, _gru_tensors)}


def _check(layer: Any) -> None:
    if layer.activation.__name__ != "tanh" or layer.recurrent_activation.__name__ != "sigmoid":
        raise ModelError("recurrent layers are converted with activations tanh and sigmoid only")
    if layer.go_backwards or layer.stateful or layer.return_state:
        raise ModelError("go_backwards, stateful and return_state are not converted")
    if type(layer).__name__ == "GRU" and not layer.reset_after:
        raise ModelError("GRU with reset_after=False is not converted")


def recurrent(layer: Any, _shape: Shape) -> Modules:
    """An LSTM or GRU over positions."""
    _check(layer)
    cell, tensors = _CELLS[type(layer).__name__]
    made = tensors(arrays(layer), "")
    inner = cell(made["weight_ih_l0"].shape[1], layer.units, batch_first=True)
    filled(inner, made)
    return {"": Recurrent(inner, bool(layer.return_sequences))}


def bidirectional(layer: Any, _shape: Shape) -> Modules:
    """An LSTM or GRU in both directions, joined."""
    one, other = layer.forward_layer, layer.backward_layer
    if layer.merge_mode != "concat" or type(one).__name__ not in _CELLS:
        raise ModelError("Bidirectional is converted around LSTM or GRU with merge_mode='concat' only")
    _check(one)
    cell, tensors = _CELLS[type(one).__name__]
    made = tensors(arrays(one), "") | tensors(arrays(other), "_reverse")
    inner = cell(made["weight_ih_l0"].shape[1], one.units, batch_first=True, bidirectional=True)
    filled(inner, made)
    return {"": Recurrent(inner, bool(one.return_sequences))}


class Attention(nn.Module):
    """Attention with several heads: projections, `softmax(q k' / sqrt(d)) v`, and a projection back."""

    def __init__(
        self, query: nn.Module, key: nn.Module, value: nn.Module, output: nn.Module, width: int
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = query, key, value, output
        self.width = width

    def forward(self, query: Tensor, value: Tensor, key: Tensor | None = None) -> Tensor:
        """Return the attended values, shape of `query`."""
        q = self._heads(self.query(query))
        k = self._heads(self.key(value if key is None else key))
        v = self._heads(self.value(value))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], -1, self.width).transpose(1, 2)


def attention(layer: Any, _shape: Shape) -> Modules:
    """`MultiHeadAttention` without masks; kernels are (features, heads, width)."""
    if layer.key_dim != layer.value_dim:
        raise ModelError("MultiHeadAttention with value_dim other than key_dim is not converted")
    query, key, value = (_projection(d, 1) for d in (layer.query_dense, layer.key_dense, layer.value_dense))
    return {"": Attention(query, key, value, _projection(layer.output_dense, 2), layer.key_dim)}


def _projection(layer: Any, inputs: int) -> nn.Module:
    found = arrays(layer)
    kernel = found["kernel"]
    flat = kernel.flatten(inputs).reshape(kernel.shape[:inputs].numel(), -1)
    bias = found["bias"].flatten() if "bias" in found else None
    return filled(
        nn.Linear(flat.shape[0], flat.shape[1], bias=bias is not None), {"weight": flat.T, "bias": bias}
    )


#: Sequence layers by the name of their class.
SEQUENCES: dict[str, Rule] = {
    "LSTM": Rule(recurrent, weights=None),
    "GRU": Rule(recurrent, weights=None),
    "Bidirectional": Rule(bidirectional, weights=None),
    "MultiHeadAttention": Rule(attention, weights=None),
}
