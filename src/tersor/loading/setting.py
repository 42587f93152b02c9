"""What kind of task this is, read from one forward pass and the targets; nothing is guessed silently."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tersor.errors import DataError, ModelError, TersorError
from tersor.loading.inputs import Inputs, call, flatten, main_output
from tersor.loading.references import first_line
from tersor.loading.survey import IGNORED, TargetFacts

#: Autograd nodes that only rename or move numbers: looked through to find the last activation.
_SHAPE_ONLY = (
    "View",
    "UnsafeView",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "T",
    "Transpose",
    "Permute",
    "Select",
    "Slice",
    "Alias",
)
_ACTIVATIONS = {"Sigmoid": "sigmoid", "Softmax": "softmax", "LogSoftmax": "log_softmax"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a metric and a loss need to know of the task.

    Attributes:
        kind: see `Task.kind`.
        outputs: shape of the model's main output for one sample.
        classes: number of classes that the outputs tell apart; 2 for one binary output, 0 where there are none.
        class_axis: axis of the (batched) output that runs along the classes.
        activation: what the outputs are: `none` (logits, values), `sigmoid`, `softmax`, `log_softmax`.
        shifted: whether position `t` of the output answers target `t + 1` (causal language models).
        one_hot: whether targets are rows of zeros with a single one.
        low: smallest target.
        high: largest target.
        why: what the kind was concluded from, in words.
    """

    kind: str
    outputs: tuple[int, ...]
    classes: int = 0
    class_axis: int = 1
    activation: str = "none"
    shifted: bool = False
    one_hot: bool = False
    low: float = 0.0
    high: float = 1.0
    why: str = ""

    @property
    def binary(self) -> bool:
        """Whether one output tells two classes apart."""
        return self.classes == 2 and self.class_axis == 0


def run_once(model: nn.Module, inputs: Inputs, shown: str) -> tuple[Tensor, str, object]:
    """Run one forward pass.

    Args:
        model: in eval mode, on its device.
        inputs: on the same device.
        shown: the inputs in words, for messages.

    Returns:
        The main output, its last activation, and all that the model returned.

    Raises:
        DataError: if the shapes are not those of an ONNX graph.
        ModelError: if the pass fails, or its output is not finite or has another batch axis.
    """
    try:
        with torch.enable_grad():
            everything = call(model, inputs)
    except TersorError:  # an ONNX graph says what it takes
        raise
    except Exception as cause:  # the user's forward may raise anything
        raise ModelError(
            f"The forward pass of {type(model).__name__} failed on the first batch ({shown}): {first_line(cause)}"
        ) from cause
    output = main_output(everything)
    samples = len(flatten(inputs)[0])
    if output.ndim == 0 or len(output) != samples:
        raise ModelError(
            f"{type(model).__name__} returned the shape {tuple(output.shape)} for {samples} samples; the first axis "
            "of the output must be the batch. (If it returns its loss, let it return its predictions.)"
        )
    if not torch.isfinite(output).all():
        raise ModelError(
            f"{type(model).__name__} returned NaN or infinite numbers on the first batch; check its weights."
        )
    return output.detach(), _activation(output), everything


def _activation(output: Tensor) -> str:
    node = output.grad_fn
    while (
        node is not None
        and node.next_functions
        and node.name().removesuffix("0").removesuffix("Backward") in _SHAPE_ONLY
    ):
        node = node.next_functions[0][0]
    if node is not None:
        return _ACTIVATIONS.get(node.name().removesuffix("0").removesuffix("Backward"), "none")
    # Frozen parameters leave no record: the values must tell.
    values = output.detach()
    if bool((values < 0).any() or (values > 1).any()):
        return "none"
    sums_to_one = (
        values.ndim > 1 and values.shape[1] > 1 and torch.allclose(values.sum(1), torch.ones(()), atol=1e-4)
    )
    return "softmax" if sums_to_one else "sigmoid"


def infer_setting(
    output: Tensor,
    activation: str,
    targets: TargetFacts | None,
    *,
    inputs: Inputs,
    target: Tensor | None,
    returned: object,
) -> Setting:
    """Conclude the kind of the task.

    Args:
        output: main output on the first batch.
        activation: what `run_once` saw last.
        targets: facts about all targets; None without labels.
        inputs: the first batch.
        target: its target.
        returned: all that the model returned, to tell logits from embeddings by their name.

    Raises:
        DataError: if targets and outputs do not go together.
    """
    shape = tuple(output.shape[1:])
    if targets is None or target is None:
        return _fidelity(shape, activation, returned)
    # The facts' own shape is of another batch; padding may have made it shorter or longer.
    targets = replace(targets, shape=tuple(target.shape[1:]))
    bounds = {"low": targets.low, "high": targets.high, "activation": activation}
    if targets.one_hot and shape == targets.shape:
        return Setting("classification", shape, shape[0], one_hot=True, why="one-hot targets", **bounds)
    if targets.whole and (not targets.floating or targets.binary):
        found = _discrete(shape, targets, inputs, target, bounds)
        if found is not None:
            return found
    if shape == targets.shape or _flat(shape) == _flat(targets.shape):
        what = "whole numbers" if targets.whole else "real numbers"
        return Setting("regression", shape, why=f"targets are {what}, one for each output", **bounds)
    raise DataError(
        f"Targets of shape {list(targets.shape)} for a sample do not fit outputs of shape {list(shape)}: expected "
        "class numbers without the class axis, or one value for each output. Is the target the right column?"
    )


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def _discrete(
    shape: tuple[int, ...],
    targets: TargetFacts,
    inputs: Inputs,
    target: Tensor,
    bounds: dict[str, Any],
) -> Setting | None:
    """Conclude the kind where every target is a whole number."""
    single, one_output = not _flat(targets.shape), not _flat(shape)
    if single and one_output and targets.binary:
        return Setting("classification", shape, 2, class_axis=0, why="0/1 targets, one output", **bounds)
    if single and len(shape) == 1 and shape[0] > 1:
        return Setting(
            "classification", shape, shape[0], why="whole-number targets, one output a class", **bounds
        )
    if targets.binary and len(shape) == 1 and shape == targets.shape:
        return Setting("multilabel", shape, shape[0], why="rows of 0/1 targets, one output each", **bounds)
    if len(targets.shape) == 1 and len(shape) == 2 and shape[0] == targets.shape[0]:
        return _tokens(shape, inputs, target, bounds)
    if targets.binary and len(_flat(shape)) >= 2 and _flat(shape) == _flat(targets.shape):
        return Setting(
            "segmentation", shape, 2, class_axis=0, why="0/1 for each position, one output", **bounds
        )
    if len(targets.shape) == len(shape) - 1 and len(shape) >= 2 and shape[1:] == targets.shape:
        return Setting("segmentation", shape, shape[0], why="a class number for each position", **bounds)
    return None


def _tokens(shape: tuple[int, ...], inputs: Inputs, target: Tensor, bounds: dict[str, Any]) -> Setting:
    same = [t for t in flatten(inputs) if t.shape == target.shape and not t.is_floating_point()]
    kept = target != IGNORED
    if any(bool((t == target)[kept].all()) for t in same):
        why = "targets repeat the inputs, so each position answers the next token"
        return Setting("language", shape, shape[-1], -1, shifted=True, why=why, **bounds)
    if any(bool((t[:, 1:] == target[:, :-1])[kept[:, :-1]].all()) for t in same):
        return Setting(
            "language", shape, shape[-1], -1, why="targets are the inputs, one position later", **bounds
        )
    return Setting("tokens", shape, shape[-1], -1, why="a class number for each token", **bounds)


def _fidelity(shape: tuple[int, ...], activation: str, returned: object) -> Setting:
    keys = tuple(returned) if isinstance(returned, Mapping) else ()
    embedding = "logits" not in keys and "last_hidden_state" in keys
    if len(shape) == 1 and shape[0] > 1 and not embedding and activation != "sigmoid":
        return Setting(
            "fidelity", shape, shape[0], activation=activation, why="no labels; outputs look like classes"
        )
    return Setting("fidelity", shape, activation=activation, why="no labels; outputs are vectors")
