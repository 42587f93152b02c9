"""16-bit floating point: a free candidate where the processor computes in it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tersor._check import one_of
from tersor.quantization.hardware import BFLOAT16, Processor, detect

#: Names of 16-bit types, as OpenVINO's option `precision` has them.
TYPES = {"bf16": torch.bfloat16, "f16": torch.float16}

#: Features of a processor with units for products in each type.
_UNITS = {"bf16": BFLOAT16, "f16": {"avx512_fp16", "amx_fp16"}}

#: Runtime -> the types that it has kernels for. ONNX Runtime's processor kernels are in float32.
_KERNELS = {
    "openvino": ("bf16", "f16"),
    "torch": ("bf16",),
    "torch-compile": ("bf16",),
    "aotinductor": ("bf16",),
}


def precisions(runtime: str, processor: Processor | None = None) -> tuple[str, ...]:
    """Return the 16-bit types worth timing in `runtime`: those that it and the processor compute in.

    For `openvino` reopen the float32 file: `with_options(artefact, precision="bf16")`. For torch's runtimes export
    `in_precision(model, "bf16")`. Outputs differ from those in float32: a candidate to be checked, not a baseline.

    Args:
        runtime: a key of `RUNTIMES`.
        processor: what `detect` gives; this machine's if None.

    Example:
        >>> precisions("openvino", Processor("x86", frozenset({"avx2", "avx512_bf16"})))
        ('bf16',)
        >>> precisions("onnxruntime")
        ()
    """
    found = (processor or detect()).features
    return tuple(name for name in _KERNELS.get(runtime, ()) if _UNITS[name] & found)


def in_precision(model: nn.Module, precision: str) -> nn.Module:
    """Return a copy of `model` that computes in a 16-bit type; its floating-point inputs and outputs stay float32.

    Args:
        model: any module; not changed.
        precision: `bf16` or `f16`.

    Raises:
        ArgumentError: if the type is unknown.

    Example:
        >>> half = in_precision(nn.Linear(2, 2), "bf16")
        >>> half(torch.ones(1, 2)).dtype, next(half.parameters()).dtype
        (torch.float32, torch.bfloat16)
    """
    return InPrecision(copy.deepcopy(model), TYPES[one_of("precision", precision, TYPES)])


class InPrecision(nn.Module):
    """A model in a 16-bit type with float32 around it."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.dtype = dtype

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model on rounded inputs, and widen what it gives."""
        args, kwargs = pytree.tree_map(lambda value: _cast(value, self.dtype), (args, kwargs))
        return pytree.tree_map(lambda value: _cast(value, torch.float32), self.model(*args, **kwargs))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
