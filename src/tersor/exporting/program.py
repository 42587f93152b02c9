"""A Program: a model captured as a graph with a dynamic batch axis, inputs and outputs flat and named."""

import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tersor.errors import ExportError
from tersor.exporting.integers import lower, session_entries
from tersor.exporting.silence import silence
from tersor.loading.inputs import Inputs, batch_size, call, flatten, main_output
from tersor.quantization.model import QuantizedModel

_DTYPES_WITHOUT_ARRAYS = (torch.bfloat16,)
#: Longest sequence of a graph with an end to each axis, if the example is not longer.
_LONGEST = 512


@dataclass(frozen=True, slots=True)
class Program:
    """A captured model.

    Attributes:
        graph: the operations; takes `arguments`, gives the tensors named in `outputs`. Of a quantized model, those
            on integers.
        model: the same function as a module, in eval mode on the CPU; what the file is compared with.
        arguments: the input tensors, in the order of `forward`.
        inputs: their names.
        outputs: names of the output tensors, the main one first.
        rounded: the quantized model whose integer form the graph is; None for a model in floating point.
        entries: session options of ONNX Runtime that the file needs to be fast.
    """

    graph: torch.export.ExportedProgram
    model: "Flat"
    arguments: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rounded: QuantizedModel | None = None
    entries: Mapping[str, str] = field(default_factory=dict)


class Flat(nn.Module):
    """`model` with tensors in and a tuple of tensors out; every other argument keeps its value in `template`."""

    def __init__(self, model: nn.Module, template: Inputs) -> None:
        super().__init__()
        self.model = model
        self.template = template

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the output tensors, the main one first."""
        return tuple(tensor for _, tensor in named_outputs(call(self.model, _fill(self.template, tensors))))


def capture(model: nn.Module, inputs: Inputs) -> Program:
    """Capture `model` as it runs on `inputs`; the model is left as it was.

    Args:
        model: any module; copied, so its mode, device and gradients do not change.
        inputs: a real batch; axes as long as the batch become dynamic.

    Raises:
        ExportError: if the model cannot be copied, run or captured, with the operation and the next step.
    """
    twin = private_copy(model)
    lowered = lower(twin)
    names = input_names(lowered, inputs)
    flat = Flat(twin, inputs)
    arguments = _at_least_two(tuple(tensor.detach().cpu().clone() for tensor in flatten(inputs)))
    with torch.no_grad(), silence():
        outputs = _output_names(flat, arguments, names)
        graph = _export(Flat(lowered, inputs), arguments, _dynamic_shapes(arguments))
    rounded = twin if isinstance(twin, QuantizedModel) else None
    return Program(graph, flat, arguments, names, outputs, rounded, session_entries(twin))


def recapture(program: Program, model: nn.Module | None, largest_batch: int) -> torch.export.ExportedProgram:
    """Return the graph of a captured model, or of another form of it, with an end to each axis that varies.

    Args:
        program: what was captured.
        model: the other form; None for the model as it is.
        largest_batch: samples that the graph takes at most; with 1, always one.
    """
    flat = program.model if model is None else Flat(model, program.model.template)
    # Decisions that a lowering takes for the example's size narrow what its graph takes; the largest has to stay.
    arguments = resize(program.arguments, largest_batch)
    longest = max((*(length for tensor in arguments for length in tensor.shape[1:2]), _LONGEST))
    with torch.no_grad(), silence():
        return _export(flat, arguments, _dynamic_shapes(arguments, largest_batch, longest))


def private_copy(model: nn.Module) -> nn.Module:
    """Return a copy of `model` on the CPU in eval mode; parameters share memory, buffers do not.

    Capturing runs the user's code on symbolic tensors, which a forward that keeps state would store.

    Raises:
        ExportError: if the model cannot be copied.
    """
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False)
        for p in model.parameters()
        if type(p) is nn.Parameter
    }
    try:
        twin = copy.deepcopy(model, memo)
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} cannot be copied before export: {first_line(error)}. "
            "Keep tensors with gradients out of the module's attributes."
        ) from error
    for module in twin.modules():
        # Not `eval()`: modules that came out of `torch.export` refuse it.
        module.training = False
    return twin.cpu()


def named_outputs(outputs: object) -> tuple[tuple[str, Tensor], ...]:
    """Return the tensors in `outputs` with their names, the main one first.

    Example:
        >>> [name for name, _ in named_outputs({"loss": torch.tensor(1.0), "logits": torch.ones(1, 2)})]
        ['logits', 'loss']
        >>> [name for name, _ in named_outputs((torch.ones(1), None, torch.zeros(1)))]
        ['output_0', 'output_2']
    """
    main = main_output(_as_mapping(outputs))
    found = list(_walk(outputs, ""))
    found.sort(key=lambda pair: pair[1] is not main)
    return tuple((name or "output", _with_array(tensor)) for name, tensor in found)


def _as_mapping(outputs: object) -> object:
    if is_dataclass(outputs) and not isinstance(outputs, type | Mapping):
        return {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    return outputs


def _walk(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    value = _as_mapping(value)
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, f"{name}_{key}" if name else str(key))
    elif isinstance(value, tuple | list):
        for position, item in enumerate(value):
            yield from _walk(item, f"{name or 'output'}_{position}")


def _with_array(tensor: Tensor) -> Tensor:
    """Return `tensor` in a dtype that numpy has, and as a node of its own when it is also an input."""
    return tensor.float() if tensor.dtype in _DTYPES_WITHOUT_ARRAYS else tensor


def _fill(template: Inputs, tensors: tuple[Tensor, ...]) -> Inputs:
    """Return `template` with its tensors replaced, in order."""
    left = iter(tensors)
    if isinstance(template, dict):
        return {k: next(left) if isinstance(v, Tensor) else v for k, v in template.items()}
    return tuple(next(left) if isinstance(v, Tensor) else v for v in template)


def input_names(model: nn.Module, inputs: Inputs) -> tuple[str, ...]:
    """Return the names that `forward` gives to the tensors of `inputs`.

    Raises:
        ExportError: if an argument holds tensors inside a container, or there is no tensor at all.
    """
    if isinstance(inputs, dict):
        named = list(inputs.items())
    else:
        named = list(zip(_positional_names(model, len(inputs)), inputs, strict=True))
    for name, value in named:
        if not isinstance(value, Tensor) and any(_walk(value, "")):
            raise ExportError(
                f"Argument `{name}` is a {type(value).__name__} of tensors. "
                "Pass each tensor as an argument of its own; wrap the model if its forward cannot change."
            )
    names = tuple(name for name, value in named if isinstance(value, Tensor))
    if not names:
        raise ExportError(
            "The inputs hold no tensor. Pass at least one tensor with the batch as its first axis."
        )
    return names


def _positional_names(model: nn.Module, count: int) -> list[str]:
    parameters = inspect.signature(model.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind in plain][:count]
    return names + [f"input_{position}" for position in range(len(names), count)]


def _output_names(flat: Flat, arguments: tuple[Tensor, ...], inputs: tuple[str, ...]) -> tuple[str, ...]:
    try:
        outputs = named_outputs(call(flat.model, _fill(flat.template, arguments)))
    except Exception as error:
        raise ExportError(
            f"The model fails on its inputs, copied to the CPU in eval mode: {first_line(error)}. "
            "Call the model on the same inputs and repair that first."
        ) from error
    return tuple(f"{name}_out" if name in inputs else name for name, _ in outputs)


def resize(arguments: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
    """Return `arguments` with `size` samples: the first ones, repeated as often as needed.

    Example:
        >>> resize((torch.tensor([1, 2]), torch.tensor(7)), 3)
        (tensor([1, 2, 1]), tensor(7))
    """
    have = batch_size(arguments)
    rows = torch.arange(size) % have
    return tuple(tensor[rows] if has_batch(tensor, have) else tensor for tensor in arguments)


def has_batch(tensor: Tensor, size: int) -> bool:
    """Whether the first axis of `tensor` is the batch."""
    return tensor.dim() > 0 and tensor.shape[0] == size


def _at_least_two(arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return `arguments` with two samples if they have one: an axis of length 1 is captured as a constant."""
    return resize(arguments, 2) if batch_size(arguments) == 1 else arguments


def _export(
    flat: Flat, arguments: tuple[Tensor, ...], shapes: tuple[dict[int, Any], ...]
) -> torch.export.ExportedProgram:
    failures: list[Exception] = []
    for strict in (False, True):
        try:
            return torch.export.export(flat, arguments, dynamic_shapes=(shapes,), strict=strict)
        except Exception as error:
            failures.append(error)
    raise ExportError(
        f"torch.export cannot capture the model: {first_line(failures[0])} "
        "Look for Python branches on tensor values and for batch sizes written as constants; "
        "use `x.shape[0]` or -1 in `view` and `reshape`."
    ) from failures[0]


def _dynamic_shapes(
    arguments: tuple[Tensor, ...], largest_batch: int | None = None, longest: int | None = None
) -> tuple[dict[int, Any], ...]:
    """Return the axes that may vary: the batch must; the length of token sequences may where the model allows it."""
    size = batch_size(arguments)
    batch = {} if largest_batch == 1 else {0: torch.export.Dim("batch", min=1, max=largest_batch)}
    length = torch.export.Dim.AUTO if longest is None else torch.export.Dim.AUTO(max=longest)
    return tuple(
        (batch if has_batch(tensor, size) else {})
        | ({1: length} if tensor.dim() > 1 and not tensor.is_floating_point() else {})
        for tensor in arguments
    )


def first_line(error: BaseException) -> str:
    """Return the first line of the message of `error`, or its type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
