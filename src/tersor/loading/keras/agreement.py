"""The converted network must answer as the original does, or it is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from tersor.errors import ModelError
from tersor.loading.inputs import main_output
from tersor.loading.keras.flow import Flow
from tersor.loading.references import first_line

#: Largest difference of outputs, relative to the largest output (at least 1).
TOLERANCE = 1e-5
_SAMPLES, _SPATIAL, _POSITIONS = 4, 64, 16


def check_agreement(
    flow: Flow, module: fx.GraphModule, original: Callable[[Any], Any], structure: Any
) -> float:
    """Compare both networks on random inputs of the shapes and types that the model states.

    Args:
        flow: of the original.
        module: the conversion.
        original: calls the Keras model with its inputs.
        structure: packs a flat list of arrays as the Keras model takes them.

    Returns:
        The largest difference, relative to the largest output (at least 1).

    Raises:
        ModelError: if it is above `TOLERANCE`, or either network does not run.
    """
    arrays = [_random(flow, number) for _, number in flow.inputs]
    try:
        with torch.no_grad():
            wanted = _tensor(main_output(_plain(original(structure(arrays)))))
            found = _tensor(main_output(module(*map(torch.from_numpy, arrays))))
    except ModelError:
        raise
    except Exception as cause:  # either network may fail in its own way
        raise ModelError(f"The converted Keras model does not run: {first_line(cause)}") from cause
    if wanted.shape != found.shape:
        raise ModelError(
            f"The converted Keras model answers in the shape {tuple(found.shape)}, the original "
            f"in {tuple(wanted.shape)}; "
            "pass the network in PyTorch meanwhile."
        )
    difference = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1.0))
    if not difference <= TOLERANCE:
        raise ModelError(
            f"The converted Keras model answers differently, by {difference:.1e} of its largest output (allowed is "
            f"{TOLERANCE:.0e}). Pass the network in PyTorch instead."
        )
    return difference


def _random(flow: Flow, number: int) -> np.ndarray:
    value, rng = flow.values[number], np.random.default_rng(number)
    images = len(value.shape) == 4
    shape = [_SAMPLES, *(n or (_SPATIAL if images else _POSITIONS) for n in value.shape[1:])]
    tables = [s.operation.input_dim for s in flow.steps if _embeds(s, number)]
    if tables or value.dtype.startswith("int"):
        found = rng.integers(0, min(tables, default=2), shape)
        return found.astype(value.dtype if value.dtype.startswith("int") else np.int64)
    return rng.standard_normal(shape).astype(np.float32)


def _embeds(step: Any, number: int) -> bool:
    used = [getattr(a, "number", None) for a in step.arguments]
    return type(step.operation).__name__ == "Embedding" and number in used


def _plain(outputs: Any) -> Any:
    return tuple(outputs) if isinstance(outputs, list) else outputs


def _tensor(value: Any) -> Tensor:
    return value.detach().cpu().to(torch.float64)
