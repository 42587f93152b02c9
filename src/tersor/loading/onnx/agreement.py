"""The converted graph must answer as ONNX Runtime does, on one sample and on several, or it is refused."""

from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from tersor.errors import ModelError
from tersor.loading.inputs import main_output
from tersor.loading.onnx.graph_model import open_content
from tersor.loading.references import first_line

#: Largest difference of outputs, relative to the largest output (at least 1).
TOLERANCE = 1e-4
_SAMPLES, _OPEN = 3, 32
_MASKS = ("mask", "valid")


def check_agreement(model: onnx.ModelProto, module: fx.GraphModule) -> float:
    """Compare a module with ONNX Runtime on random inputs of the shapes and types that the graph states.

    Where the graph has a fixed batch, the runtime answers sample by sample and the module all at once, so that a batch
    of any size is known to work.

    Returns:
        The largest difference of the main output, relative to the largest output (at least 1).

    Raises:
        ModelError: if it is above `TOLERANCE`, or either does not run.
    """
    session = open_session(model)
    given = session.get_inputs()
    fixed = has_fixed_batch(session)
    arrays = examples(session, module, _SAMPLES, _OPEN)
    step = given[0].shape[0] if fixed else len(arrays[0])
    names = [entry.name for entry in given]
    try:
        answers = [
            session.run(None, {n: a[i : i + step] for n, a in zip(names, arrays, strict=True)})[0]
            for i in range(0, len(arrays[0]), step)
        ]
        with torch.no_grad():
            found = main_output(module(*map(torch.from_numpy, arrays)))
    except ModelError:
        raise
    except Exception as cause:  # either may fail in its own way
        why = "The ONNX graph does not run as converted"
        if fixed:
            why = f"The ONNX graph takes {step} samples at a time. Export it with an open batch axis"
        raise ModelError(f"{why} ({first_line(cause)}).") from cause
    return _compared(torch.from_numpy(np.concatenate(answers)), found)


def _compared(wanted: Tensor, found: Tensor) -> float:
    if wanted.shape != found.shape:
        raise ModelError(
            f"The converted ONNX graph answers in the shape {tuple(found.shape)}, ONNX Runtime in "
            f"{tuple(wanted.shape)}. Export it with an open batch axis, or pass the network in PyTorch."
        )
    difference = float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1.0))
    if not difference <= TOLERANCE:
        raise ModelError(
            f"The converted ONNX graph answers differently from ONNX Runtime, by {difference:.1e} of its largest "
            f"output (allowed is {TOLERANCE:.0e}). Pass the network in PyTorch instead."
        )
    return difference


def open_session(model: onnx.ModelProto) -> Any:
    """Return ONNX Runtime's session of a graph.

    Raises:
        ModelError: if the runtime does not open it.
    """
    return open_content(model.SerializeToString())


def with_open_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` with an open batch axis, checked to answer several batches at once as it does one by one.

    Raises:
        ModelError: if it takes a fixed number of samples, and another one changes the answers.
    """
    session = open_session(model)
    if not has_fixed_batch(session):
        return model
    step, names = session.get_inputs()[0].shape[0], [entry.name for entry in session.get_inputs()]
    opened = _opened(model, step)
    try:
        arrays = examples(session, None, _SAMPLES, _OPEN)
        parts = [
            session.run(None, {n: a[i : i + step] for n, a in zip(names, arrays, strict=True)})[0]
            for i in range(0, len(arrays[0]), step)
        ]
        whole = open_session(opened).run(None, dict(zip(names, arrays, strict=True)))[0]
        _compared(torch.from_numpy(np.concatenate(parts)), torch.from_numpy(whole))
    except Exception as cause:  # the runtime has many classes of errors
        raise ModelError(
            f"The ONNX graph takes {step} sample{'s' * (step > 1)} at a time, and does not answer another number of "
            f"samples in the same way ({first_line(cause)}). Export it with an open batch axis."
        ) from cause
    return opened


def _opened(model: onnx.ModelProto, step: int) -> onnx.ModelProto:
    """Return a copy of `model` whose inputs and outputs have an open first axis where it was `step`."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        axes = value.type.tensor_type.shape.dim
        if axes and axes[0].dim_value == step:
            axes[0].dim_param = "batch"
    return model


def has_fixed_batch(session: Any) -> bool:
    """Whether the first axis of the first input is a number."""
    given = session.get_inputs()
    return bool(given) and bool(given[0].shape) and isinstance(given[0].shape[0], int)


def examples(session: Any, module: fx.GraphModule | None, samples: int, length: int) -> list[np.ndarray]:
    """Return random inputs of the shapes and types that a graph states.

    Args:
        session: of the graph.
        module: the conversion, for the number of rows that integers may name; None for two.
        samples: in the batch; as many times the fixed batch where it is fixed.
        length: of every other open axis.
    """
    fixed, arrays = has_fixed_batch(session), []
    for number, entry in enumerate(session.get_inputs()):
        first = samples * (entry.shape[0] if fixed else 1)
        shape = [first, *(n if isinstance(n, int) else length for n in entry.shape[1:])]
        arrays.append(_random(entry.name, entry.type, shape, _rows(module, entry.name), number))
    return arrays


def _random(name: str, kind: str, shape: list[int], rows: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if "float" in kind:
        return rng.standard_normal(shape).astype(np.float16 if "16" in kind else np.float32)
    if any(word in name.lower() for word in _MASKS) or "bool" in kind:
        return np.ones(shape, dtype=bool if "bool" in kind else _TYPES.get(kind, np.int64))
    return rng.integers(0, rows, shape).astype(_TYPES.get(kind, np.int64))


_TYPES = {"tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}


def _rows(module: fx.GraphModule | None, name: str) -> int:
    """Return how many different numbers an input of integers may hold: the rows of the tables that it looks into."""
    if module is None:
        return 2
    tables = [
        found.num_embeddings
        for node in module.graph.nodes
        if node.op == "call_module"
        and isinstance(found := module.get_submodule(str(node.target)), nn.Embedding)
        for source in node.args
        if isinstance(source, fx.Node) and source.op == "placeholder" and source.target == name
    ]
    return min(tables, default=2)
