"""What a user passes to a model, as the arrays that a file takes."""

import numpy as np

from tersor.errors import ArgumentError
from tersor.exporting.artefact import Artefact
from tersor.exporting.program import resize
from tersor.loading.inputs import Inputs, batch_size, flatten, to_numpy


def feed(artefact: Artefact, inputs: Inputs, batch: int | None = None) -> tuple[tuple[np.ndarray, ...], int]:
    """Return the arrays for `artefact`, in the order of its inputs, and the number of samples in them.

    Args:
        artefact: the file.
        inputs: a real batch, as the model takes it.
        batch: samples wanted, the first ones repeated as often as needed; None takes what is there.

    Raises:
        ArgumentError: if an input of the file is missing, or `batch` is below 1.

    Example:
        >>> import torch
        >>> from pathlib import Path
        >>> file = Artefact("onnxruntime", Path("m.onnx"), 1, "", {}, ("a", "b"), ("y",))
        >>> arrays, size = feed(file, {"b": torch.ones(2), "a": torch.zeros(2)}, batch=3)
        >>> arrays[0], size
        (array([0., 0., 0.], dtype=float32), 3)
    """
    if isinstance(inputs, dict) and artefact.inputs:
        missing = [name for name in artefact.inputs if name not in inputs]
        if missing:
            raise ArgumentError(f"{artefact.path.name} needs the inputs {missing}; got {sorted(inputs)}.")
        inputs = {name: inputs[name] for name in artefact.inputs}
    size = batch_size(inputs) if batch is None else batch
    if size < 1:
        raise ArgumentError(f"`batch` must be at least 1, got {size}.")
    return to_numpy(resize(flatten(inputs), size)), size
