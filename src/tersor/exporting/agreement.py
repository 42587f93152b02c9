"""Whether a written file computes what the model computes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tersor.errors import ExportError
from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.program import Program, resize
from tersor.loading.inputs import batch_size

#: Largest relative error by the coarsest floating type of the model. Operations are reordered, so the last bits
#: differ; 1e-4 is 80 dB below the signal.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}

#: Of a quantized model: a value next to a rounding boundary may fall to its other side, by one step of its grid.
#: In deep networks such steps move later values across their boundaries, so that the two are rounded apart: each is
#: as far from the unrounded answer as rounding takes it, and twice that from one another at most.
QUANTIZED_TOLERANCE, _APART = 2e-2, 2.0


def check_agreement(artefact: Artefact, program: Program, session: Session) -> None:
    """Compare the file, opened as `session`, with the model on the captured inputs and on another batch size.

    Raises:
        ExportError: naming the output, the error and the batch size at which the two differ.
    """
    size = batch_size(program.arguments)
    for batch in (size, 1):
        arguments = resize(program.arguments, batch)
        with torch.no_grad():
            expected = program.model(*arguments)
        tolerances = tolerances_of(program, arguments, expected)
        try:
            actual = session([tensor.numpy() for tensor in arguments])
        except Exception as error:
            raise ExportError(
                f"{artefact.runtime} cannot run {artefact.path.name} on a batch of {batch}: {error}. "
                "Look for sizes written as constants in the model's forward."
            ) from error
        for name, want, have, tolerance in zip(program.outputs, expected, actual, tolerances, strict=True):
            error = relative_error(want, have)
            if not error <= tolerance:
                raise ExportError(
                    f"Output `{name}` of {artefact.path.name} differs from the model on a batch of {batch}: "
                    f"relative error {error:.2g}, allowed {tolerance:.2g}. A forward that draws random numbers, "
                    "keeps state or depends on the batch size cannot be written as a file."
                )


def tolerances_of(program: Program, arguments: tuple[Tensor, ...], expected: Sequence[Tensor]) -> list[float]:
    """Return for each output the largest relative error that the model's types, or its rounding, explain."""
    if program.rounded is None:
        dtypes = {tensor.dtype for tensor in program.model.state_dict().values()}
        known = [TOLERANCE[dtype] for dtype in dtypes if dtype in TOLERANCE]
        return [max(known, default=TOLERANCE[torch.float32])] * len(expected)
    with torch.no_grad(), program.rounded.rounding(lambda _: False):
        unrounded = program.model(*arguments)
    return [
        max(QUANTIZED_TOLERANCE, _APART * relative_error(exact, rounded.numpy()))
        for exact, rounded in zip(unrounded, expected, strict=True)
    ]


def relative_error(expected: Tensor, actual: np.ndarray) -> float:
    """Return max_i ||actual_i - expected_i|| / rms_i ||expected_i|| over samples i; inf where the shapes differ.

    Entries that are the same infinity or NaN in both count as equal. For integers and booleans it is the share
    of entries that differ.

    Example:
        >>> relative_error(torch.tensor([[3.0, 4.0]]), np.array([[3.0, 4.5]], dtype=np.float32))
        0.1
    """
    want = expected.numpy()
    if want.shape != actual.shape:
        return float("inf")
    if not expected.is_floating_point():
        return float(np.mean(want != actual)) if want.size else 0.0
    want, have = np.atleast_1d(want).astype(np.float64), np.atleast_1d(actual).astype(np.float64)
    same = (want == have) | (np.isnan(want) & np.isnan(have))
    rows = (len(want), -1) if want.size else (1, 0)
    difference = np.where(same, 0.0, np.subtract(have, want, where=~same, out=np.zeros_like(want))).reshape(
        rows
    )
    scale = np.sqrt(np.mean(np.sum(np.where(np.isfinite(want), want, 0.0).reshape(rows) ** 2, axis=1)))
    worst = float(np.max(np.linalg.norm(difference, axis=1), initial=0.0))
    return worst / float(scale) if scale > 0 else worst
