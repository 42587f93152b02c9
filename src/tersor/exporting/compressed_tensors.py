"""Weights alone in integers as a folder that transformers and vLLM load, in the compressed-tensors layout."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tersor.errors import ExportError
from tersor.quantization.capture import get_tensor, operands
from tersor.quantization.grid import QSpec
from tersor.quantization.insert import table_calls
from tersor.quantization.layers import Layer, layers
from tersor.quantization.model import QuantizedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def save_compressed_tensors(quantized: QuantizedModel, model: "PreTrainedModel", folder: Path | str) -> Path:
    """Write `quantized` as a folder that `from_pretrained` opens.

    Each integer weight becomes `weight_packed` (codes in 32-bit words, the first in the lowest bits), `weight_scale`,
    `weight_shape` and, for asymmetric codes, `weight_zero_point`; `config.json` says how to read them. Everything else
    is stored as `quantized` holds it, so that rescalings of norms are in the file; tables of embeddings, for which the
    layout has no codes, as the values of theirs.

    Args:
        quantized: what `quantize(model, ..., scheme="int4")` or another weight-only scheme gave.
        model: the transformers model that it was made from, for its configuration and its names.
        folder: where to write; made if it does not exist.

    Returns:
        The folder.

    Raises:
        ExportError: if `quantized` does not have integers in its weights alone, a weight is shared with another layer,
            or its rows are no multiple of the block.

    Source: compressed-tensors, format `pack-quantized`. https://github.com/vllm-project/compressed-tensors
    """
    scheme = quantized.scheme
    if scheme.kind != "weights":
        raise ExportError(
            f"compressed-tensors files hold integers in weights alone; this model has {scheme.kind} integers. "
            "Quantize with scheme='int4', 'int8' or `weight_only(...)`."
        )
    found = layers(quantized.graph_module)
    state = _floats(quantized, model)
    for layer in found:
        _check(layer, state, model)
        site = layer.weight.rpartition(".")[0]
        weight = get_tensor(quantized.graph_module, layer.weight)
        del state[layer.weight]
        state |= {f"{site}.{name}": tensor for name, tensor in _packed(layer, weight).items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    file = folder / "config.json"
    config = json.loads(file.read_text()) | {"quantization_config": _configuration(found, model)}
    file.write_text(json.dumps(config, indent=2) + "\n")
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


def _floats(quantized: QuantizedModel, model: "PreTrainedModel") -> dict[str, Tensor]:
    """Return the model's tensors by name, with the values that `quantized` has; each shared tensor once."""
    own = quantized.graph_module.state_dict()
    for lookup, table in table_calls(quantized.graph_module):
        name = str(operands(lookup)[0].target)
        own[name] = table(own[name], torch.arange(len(own[name])))
    state, seen = dict[str, Tensor](), set[int]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = own.get(name, tensor).detach().clone()
    return state


def _check(layer: Layer, state: dict[str, Tensor], model: "PreTrainedModel") -> None:
    tied = [name for name, p in model.named_parameters(remove_duplicate=False) if name != layer.weight]
    tensors = dict(model.named_parameters(remove_duplicate=False))
    if layer.weight not in state or any(tensors[name] is tensors[layer.weight] for name in tied):
        raise ExportError(
            f"The weight {layer.weight!r} is shared with another layer, which reads it in floating point. Leave its "
            "site out of the plan, or untie the two."
        )
    block, width = layer.quantizer.spec.block, tensors[layer.weight].shape[1]
    if width % block:
        raise ExportError(
            f"The rows of {layer.weight!r} have {width} entries, no multiple of the block of {block}. Choose another "
            "`block`, or leave its site out of the plan."
        )


def _packed(layer: Layer, weight: Tensor) -> dict[str, Tensor]:
    spec, (step, zero) = layer.quantizer.spec, layer.quantizer.grid()
    # Words hold unsigned codes; readers subtract half of the range, which turns symmetric codes into signed ones.
    offset = 2 ** (spec.storage_bits - 1) if spec.signed else 0
    tensors = {
        "weight_packed": pack(layer.quantizer.codes(weight) + offset, spec.storage_bits),
        "weight_scale": step.to(weight.dtype).clone(),
        "weight_shape": torch.tensor(weight.shape),
    }
    if not spec.symmetric:
        tensors["weight_zero_point"] = pack(zero.expand_as(step).t(), spec.storage_bits).t()
    return tensors


def pack(codes: Tensor, bits: int) -> Tensor:
    """Return rows of unsigned codes in 32-bit words, the first in the lowest bits.

    Args:
        codes: shape (rows, n), integers from 0 to `2^bits - 1`.
        bits: 4 or 8.

    Returns:
        Shape (rows, ceil(n bits / 32)), int32.

    Example:
        >>> pack(torch.tensor([[1, 2, 0, 0, 0, 0, 0, 0, 3]]), 4).tolist()
        [[33, 3]]
    """
    per = 32 // bits
    padded = torch.nn.functional.pad(codes.long(), (0, -codes.shape[1] % per)).unflatten(1, (-1, per))
    words = (padded << (bits * torch.arange(per, device=codes.device))).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def _configuration(found: list[Layer], model: "PreTrainedModel") -> dict[str, Any]:
    sites = [layer.weight.rpartition(".")[0] for layer in found]
    spec: QSpec = found[0].quantizer.spec
    weights = {
        "num_bits": spec.storage_bits, "type": "int", "symmetric": spec.symmetric, "strategy": "group",
        "group_size": spec.block, "dynamic": False,
    }  # fmt: skip
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}},
        "ignore": [name for name in linear if name not in sites],
    }  # fmt: skip
