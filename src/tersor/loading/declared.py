"""What a model itself says about its inputs, where there is no data: enough to draw inputs of that form at random."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from tersor.errors import DataError
from tersor.loading.drawn import DrawnInput, as_reference
from tersor.loading.keras.origin import ORIGIN
from tersor.loading.onnx.graph_model import PORTS, GraphModel, Port

if TYPE_CHECKING:
    import onnx

#: Names of inputs that say which positions count; all do.
_MASKS = ("mask", "valid")
#: What stands for an open size in an example: of a picture, of a sequence.
_SIDE, _LENGTH = 224, 128
_PASS = "Pass your data, or what one sample looks like, to have inputs drawn at random: "


@dataclass(frozen=True, slots=True)
class _Input:
    """What is known of one input: a size of None is open, and `rows` is how many numbers of a table it may name."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    rows: int | None = None

    @property
    def open(self) -> bool:
        return None in self.shape

    def drawn(self, name: str) -> DrawnInput:
        """Return how it is drawn, with usual sizes in place of open ones."""
        usual = _SIDE if len(self.shape) >= 3 else _LENGTH
        shape = tuple(usual if size is None else size for size in self.shape)
        if self.rows is not None:
            kind = self.dtype if self.dtype in ("int32", "int64") else "int64"
            return DrawnInput(name, kind, shape, (0, self.rows - 1))
        if self.dtype.startswith("float"):
            return DrawnInput(name, self.dtype, shape)
        masks = self.dtype == "bool" or any(word in self.name.lower() for word in _MASKS)
        span = (1, 1) if masks else (0, 255) if self.dtype == "uint8" else (0, 1)
        return DrawnInput(name, self.dtype, shape, span)


def drawn_reference(model: nn.Module) -> str:
    """Return the data reference that draws inputs of the form that `model` says it takes.

    An ONNX graph, a Keras model, a model of timm and one of transformers say so; a plain module of torch does not.

    Args:
        model: as `load_model` gives it.

    Raises:
        DataError: if it does not say, or leaves a size open; with a reference to pass instead.

    Example:
        >>> net = nn.Conv2d(3, 8, 3)
        >>> net.pretrained_cfg = {"input_size": (3, 32, 32)}  # as timm has it
        >>> drawn_reference(net)
        'random:3x32x32'
    """
    found = next((inputs for read in _READERS if (inputs := read(model))), ())
    if not found:
        raise DataError(
            f"There is no data, and {type(model).__name__} does not say what it takes. {_PASS}"
            'data="random:3x224x224" (`--data random:3x224x224`) for pictures, '
            '"random:input_ids=int64:128:0..30521" for token numbers.'
        )
    named = len(found) > 1
    reference = as_reference([one.drawn(one.name if named else "") for one in found])
    left_open = [one.name for one in found if one.open]
    if left_open:
        raise DataError(
            f"There is no data, and {type(model).__name__} leaves a size of {' and '.join(left_open)} open. {_PASS}"
            f'data="{reference}" (`--data {reference}`), with your sizes.'
        )
    return reference


def _of_graph(model: nn.Module) -> tuple[_Input, ...]:
    """Return the inputs of an ONNX graph that stays one."""
    if not isinstance(model, GraphModel):
        return ()
    graph = model.proto().graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in weights]
    return tuple(
        _Input(port.name, _name(port.dtype), port.shape[1:], _gathered(graph, weights, name))
        for port, name in zip(model.ports, names, strict=True)
    )


def _gathered(graph: "onnx.GraphProto", weights: Mapping[str, Sequence[int]], name: str) -> int | None:
    """Return the rows of the smallest table that an input looks into, directly or cast."""
    same = {name}
    for node in graph.node:
        if node.op_type in ("Cast", "Identity") and node.input[0] in same:
            same.add(node.output[0])
    rows = [
        weights[node.input[0]][0]
        for node in graph.node
        if node.op_type == "Gather" and node.input[1] in same and len(weights.get(node.input[0], ())) > 1
    ]
    return min(rows, default=None)


def _of_converted(model: nn.Module) -> tuple[_Input, ...]:
    """Return the inputs of a module that was converted from ONNX or Keras, as the file stated them."""
    if not isinstance(model, fx.GraphModule):
        return ()
    stated: Iterable[tuple[str, tuple[int | None, ...]]] = ()
    if PORTS in model.meta:
        ports: tuple[Port, ...] = model.meta[PORTS]
        stated = [(_name(port.dtype), port.shape) for port in ports]
    elif ORIGIN in model.meta:
        stated = [(value.dtype, value.shape) for _, _, value in model.meta[ORIGIN].inputs]
    places = [node for node in model.graph.nodes if node.op == "placeholder"]
    return tuple(
        _Input(str(place.target), dtype, tuple(shape[1:]), _looked_up(model, place))
        for (dtype, shape), place in zip(stated, places, strict=False)
    )


def _looked_up(model: fx.GraphModule, place: fx.Node) -> int | None:
    """Return the rows of the smallest embedding that a placeholder goes into, directly or cast."""
    readers = list(place.users)
    readers += [after for node in place.users if node.op != "call_module" for after in node.users]
    tables = [model.get_submodule(str(node.target)) for node in readers if node.op == "call_module"]
    return min((table.num_embeddings for table in tables if isinstance(table, nn.Embedding)), default=None)


def _of_timm(model: nn.Module) -> tuple[_Input, ...]:
    """Return the picture that a model of timm was trained on."""
    for place in ("pretrained_cfg", "default_cfg"):
        told = getattr(model, place, None)
        size = told.get("input_size") if isinstance(told, Mapping) else None
        if size is not None:
            return (_Input("x", "float32", tuple(size)),)
    return ()


def _of_transformers(model: nn.Module) -> tuple[_Input, ...]:
    """Return the main input of a model of transformers, from its configuration."""
    told: Any = getattr(model, "config", None)
    main = getattr(model, "main_input_name", None)
    if told is None or getattr(told, "is_encoder_decoder", False):
        return ()
    rows, side = getattr(told, "vocab_size", None), getattr(told, "image_size", None)
    if main == "input_ids" and rows:
        length = min(_LENGTH, getattr(told, "max_position_embeddings", None) or _LENGTH)
        return (_Input(main, "int64", (length,), rows),)
    if main == "pixel_values" and side:
        sides = (side, side) if isinstance(side, int) else tuple(side)
        return (_Input(main, "float32", (getattr(told, "num_channels", 3), *sides)),)
    return ()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_READERS: tuple[Callable[[nn.Module], tuple[_Input, ...]], ...] = (
    _of_graph,
    _of_converted,
    _of_timm,
    _of_transformers,
)
