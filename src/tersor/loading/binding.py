"""How a batch of the user's data becomes the arguments of `forward` and the target."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tersor.errors import DataError
from tersor.loading.inputs import Inputs
from tersor.loading.onnx.graph_model import GraphModel
from tersor.loading.stacking import Path, as_tensor, leaves, tupled

#: Keys that hold what a model should answer, as datasets and Transformers' collators name them.
TARGET_KEYS = ("labels", "label", "label_ids", "target", "targets", "y", "class", "fine_label")


@dataclass(frozen=True, slots=True)
class Binding:
    """Which leaf of a batch goes to which parameter of `forward`, and which one is the target.

    Attributes:
        arguments: (path in the batch, name of the parameter) in the order of the call.
        named: whether arguments are passed by name.
        target: path of the target; None without labels.
        unused: paths that go nowhere.
        dtype: floating-point type of the model's parameters; floating-point leaves are cast to it.
        shapes: leaf shapes and types of the first batch, for `words`.
        types: of arguments whose type is fixed, as those of an ONNX graph; the others are cast to `dtype` as said.
    """

    arguments: tuple[tuple[Path, str], ...]
    named: bool
    target: Path | None
    unused: tuple[Path, ...]
    dtype: torch.dtype
    shapes: Mapping[Path, str]
    types: Mapping[str, torch.dtype] = field(default_factory=dict)

    def bind(self, batch: Any) -> tuple[Inputs, Tensor | None]:
        """Return the inputs and the target of a batch.

        Raises:
            DataError: if the batch has another form than the first one, or its leaves differ in length.
        """
        found = leaves(tupled(batch))
        values = [self._input(_numeric(found, path), name) for path, name in self.arguments]
        target = None if self.target is None else self._output(_numeric(found, self.target))
        lengths = {len(v) for v in (*values, *(() if target is None else (target,)))}
        if len(lengths) > 1:
            sizes = ", ".join(
                f"{name} {tuple(v.shape)}" for (_, name), v in zip(self.arguments, values, strict=True)
            )
            raise DataError(
                f"The parts of a batch differ in their number of samples: {sizes}, "
                f"target {None if target is None else tuple(target.shape)}. The first axis of each is the batch."
            )
        if self.named:
            return {name: v for (_, name), v in zip(self.arguments, values, strict=True)}, target
        return tuple(values), target

    def words(self) -> tuple[str, ...]:
        """Return the binding as lines to show: what goes where, with shapes and types."""
        lines = [f"{name} <- {_show(path)} {self.shapes[path]}" for path, name in self.arguments]
        if self.target is not None:
            lines.append(f"target <- {_show(self.target)} {self.shapes[self.target]}")
        else:
            lines.append("target: none, the data has no labels")
        if self.unused:
            lines.append(f"not used: {', '.join(map(_show, self.unused))}")
        return tuple(lines)

    def _input(self, value: Tensor, name: str) -> Tensor:
        if name in self.types:
            return value.to(self.types[name])
        # Bytes are pixels, not token numbers: no embedding takes uint8.
        return value.to(self.dtype) if value.is_floating_point() or value.dtype == torch.uint8 else value

    def _output(self, value: Tensor) -> Tensor:
        return value.to(self.dtype) if value.is_floating_point() else value.to(torch.int64)


def make_binding(model: nn.Module, batch: Any, *, target: str | None = None) -> Binding:
    """Match a batch with the signature of `model.forward`.

    A tensor is the one argument. Of a tuple the last element is the target if `forward` can take the others
    without it. Keys of a dict go to the parameters of their names; one of `TARGET_KEYS`, or `target`, is the target.

    Args:
        model: the model.
        batch: the first batch.
        target: key (or position in a tuple) of the target, where it cannot be guessed.

    Returns:
        The binding.

    Raises:
        DataError: if the two cannot be matched, naming the parameters and what the batch holds.

    Example:
        >>> make_binding(nn.Linear(2, 1), (torch.zeros(4, 2), torch.zeros(4, 1))).words()
        ('input <- batch[0] float32[N, 2]', 'target <- batch[1] float32[N, 1]')
    """
    batch = tupled(batch)
    found = leaves(batch)
    signature = _Signature.of(model)
    answer = _target_path(batch, signature, target)
    arguments, named = _match(batch, signature, answer)
    for path in [p for p, _ in arguments] + ([answer] if answer is not None else []):
        _numeric(found, path)
    used = {path for path, _ in arguments} | {answer}
    return Binding(
        arguments=arguments,
        named=named,
        target=answer,
        unused=tuple(path for path in found if path not in used),
        dtype=next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32),
        shapes={path: _shape(leaf) for path, leaf in found.items()},
        types={port.name: port.dtype for port in model.ports} if isinstance(model, GraphModel) else {},
    )


@dataclass(frozen=True, slots=True)
class _Signature:
    """The parameters of a `forward` method."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    many: bool  # takes *args
    any_name: bool  # takes **kwargs

    @classmethod
    def of(cls, model: nn.Module) -> "_Signature":
        try:
            parameters = inspect.signature(model.forward).parameters.values()
        except (ValueError, TypeError):  # scripted modules and builtins have none
            return cls((), (), True, True)
        plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return cls(
            required=tuple(p.name for p in plain if p.default is p.empty),
            optional=tuple(p.name for p in plain if p.default is not p.empty),
            many=any(p.kind is p.VAR_POSITIONAL for p in parameters),
            any_name=any(p.kind is p.VAR_KEYWORD for p in parameters),
        )

    def takes(self, count: int) -> bool:
        return len(self.required) <= count and (self.many or count <= len(self.required) + len(self.optional))

    def position(self, index: int) -> str:
        names = self.required + self.optional
        return names[index] if index < len(names) else f"argument {index + 1}"

    def __str__(self) -> str:
        options = tuple(f"{name}=..." for name in self.optional)
        return f"forward({', '.join(self.required + options + ('*args',) * self.many + ('**kwargs',) * self.any_name)})"


def _target_path(batch: Any, signature: _Signature, asked: str | None) -> Path | None:
    if asked is not None:
        path: Path = (int(asked),) if asked.lstrip("-").isdigit() and isinstance(batch, tuple) else (asked,)
        if path[0] not in (
            batch if isinstance(batch, Mapping) else range(len(batch) if isinstance(batch, tuple) else 0)
        ):
            raise DataError(f"The target {asked!r} is not in the batch, which holds {_content(batch)}.")
        return path
    if isinstance(batch, Mapping):
        return next(((k,) for k in TARGET_KEYS if k in batch and k not in signature.required), None)
    if isinstance(batch, tuple) and len(batch) > 1:
        inputs = batch[0] if len(batch) == 2 and isinstance(batch[0], tuple) else batch[:-1]
        if isinstance(batch[0], Mapping) or signature.takes(len(inputs)):
            return (len(batch) - 1,)
    if isinstance(batch, tuple) and len(batch) == 1 and isinstance(batch[0], Mapping):
        return next(((0, k) for k in TARGET_KEYS if k in batch[0] and k not in signature.required), None)
    return None


def _match(
    batch: Any, signature: _Signature, answer: Path | None
) -> tuple[tuple[tuple[Path, str], ...], bool]:
    if isinstance(batch, Mapping):
        return _by_name(batch, (), signature, answer)
    if not isinstance(batch, tuple):
        return _by_position([()], batch, signature)
    if isinstance(batch[0], Mapping):
        return _by_name(batch[0], (0,), signature, answer)
    places = [i for i in range(len(batch)) if (i,) != answer]
    nested = batch[places[0]] if len(places) == 1 else None
    paths: list[Path] = [(i,) for i in places]
    if isinstance(nested, tuple):
        paths = [(places[0], i) for i in range(len(nested))]
    return _by_position(paths, batch, signature)


def _by_position(
    paths: list[Path], batch: Any, signature: _Signature
) -> tuple[tuple[tuple[Path, str], ...], bool]:
    if not signature.takes(len(paths)):
        raise DataError(f"A batch holds {_content(batch)}, which does not fit {signature}.")
    return tuple((path, signature.position(i)) for i, path in enumerate(paths)), False


def _by_name(
    batch: Mapping[str, Any], prefix: Path, signature: _Signature, answer: Path | None
) -> tuple[tuple[tuple[Path, str], ...], bool]:
    keys = [key for key in batch if (*prefix, key) != answer]
    names = signature.required + signature.optional
    matched = [key for key in keys if key in names or (signature.any_name and not names)]
    missing = [name for name in signature.required if name not in matched]
    if not missing and matched:
        return tuple(((*prefix, key), key) for key in matched), True
    numeric = [key for key in keys if as_tensor(batch[key]) is not None]
    if len(numeric) == 1 and len(missing) <= 1 and not matched:
        return (((*prefix, numeric[0]), signature.position(0)),), False
    raise DataError(
        f"A batch holds the keys {', '.join(map(repr, batch))}, which do not fit {signature}: "
        f"{', '.join(map(repr, missing)) or 'every parameter'} is missing. Rename the columns after the parameters."
    )


def _numeric(found: Mapping[Path, Any], path: Path) -> Tensor:
    if path not in found:
        raise DataError(f"A batch lacks {_show(path)}, which the first batch had.")
    value = as_tensor(found[path])
    if value is None or value.ndim == 0:
        raise DataError(
            f"{_show(path)} holds {_shape(found[path])}, not numbers with a batch axis. Turn text into token "
            "numbers and categories into integers in the dataset."
        )
    return value


def _shape(leaf: Any) -> str:
    value = as_tensor(leaf)
    if value is None:
        inner = f" of {type(leaf[0]).__name__}" if isinstance(leaf, list) and leaf else ""
        return f"{type(leaf).__name__}{inner}"
    axes = ["N", *map(str, value.shape[1:])] if value.ndim else []
    return f"{str(value.dtype).removeprefix('torch.')}[{', '.join(axes)}]"


def _content(batch: Any) -> str:
    return ", ".join(f"{_show(path)} {_shape(leaf)}" for path, leaf in leaves(batch).items())


def _show(path: Path) -> str:
    return "batch" + "".join(f"[{part!r}]" for part in path)
