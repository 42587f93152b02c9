"""The sizes that torch's own layers hold for show: nothing in a forward pass reads them."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

Sizes = Callable[[Any], dict[str, int]]


def _conv(layer: _ConvNd) -> dict[str, int]:
    first, second = (int(n) for n in layer.weight.shape[:2])
    if layer.transposed:
        return {"in_channels": first, "out_channels": second * layer.groups}
    return {"out_channels": first, "in_channels": second * layer.groups}


def _linear(layer: nn.Linear) -> dict[str, int]:
    return {"out_features": int(layer.weight.shape[0]), "in_features": int(layer.weight.shape[1])}


def _norm(layer: _NormBase) -> dict[str, int]:
    vector = layer.weight if layer.weight is not None else layer.running_mean
    return {} if vector is None else {"num_features": int(vector.shape[0])}


def _group_norm(layer: nn.GroupNorm) -> dict[str, int]:
    return {} if layer.weight is None else {"num_channels": int(layer.weight.shape[0])}


def _embedding(layer: nn.Embedding) -> dict[str, int]:
    return {"num_embeddings": int(layer.weight.shape[0]), "embedding_dim": int(layer.weight.shape[1])}


def _attention(layer: nn.MultiheadAttention) -> dict[str, int]:
    queries = layer.in_proj_weight if layer._qkv_same_embed_dim else layer.q_proj_weight
    width = int(queries.shape[1])
    sizes = {"embed_dim": width, "head_dim": width // layer.num_heads}
    return sizes | {"kdim": width, "vdim": width} if layer._qkv_same_embed_dim else sizes


def _recurrent(layer: nn.RNNBase | nn.RNNCellBase) -> dict[str, int]:
    weights = dict(layer.named_parameters(recurse=False))
    suffix = "_l0" if isinstance(layer, nn.RNNBase) else ""
    rows, width = (int(n) for n in weights[f"weight_ih{suffix}"].shape)
    kind = layer.mode if isinstance(layer, nn.RNNBase) else type(layer).__name__.removesuffix("Cell")
    return {"input_size": width, "hidden_size": rows // {"LSTM": 4, "GRU": 3}.get(kind, 1)}


def layer_sizes(layer: nn.Module) -> dict[str, int]:
    """Return the attributes that a layer of torch should hold, by its weights; none for other modules."""
    sizes: dict[str, int] = {}
    for kind, read in LAYER_SIZES.items():
        if isinstance(layer, kind):
            sizes |= read(layer)
    return sizes


LAYER_SIZES: dict[type, Sizes] = {
    nn.Linear: _linear,
    _ConvNd: _conv,
    _NormBase: _norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.MultiheadAttention: _attention,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _recurrent,
}
