"""One eager forward pass, watched: every ATen operation labelled, and the module that ran it noted."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import tersor.graph.rules
from tersor.graph.cells import Axis
from tersor.graph.labels import Labels, bind, tensors_of
from tersor.graph.rules.registry import RULES, apply_rule

assert tersor.graph.rules


#: Fused attention; its two products have costs of their own.
ATTENTION = {name for name in RULES if name.startswith("_scaled_dot_product")}


class ParameterChanged(Exception):
    """The forward pass writes into a parameter."""


@dataclass(slots=True)
class Step:
    """One operation as it ran."""

    module: str
    op: str
    shape: tuple[int, ...]
    macs: int
    axes: list[Axis] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


def replica(model: nn.Module, *, share: bool) -> nn.Module:
    """Return a copy of the module tree in evaluation mode; with `share`, its parameters are the model's own."""
    memo: dict[int, Any] = {id(p): p for p in model.parameters()} if share else {}
    return copy.deepcopy(model, memo).eval()


def on_meta(model: nn.Module) -> bool:
    """Whether the model has shapes but no values."""
    return any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def fake_replica(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Return a copy of a model on the meta device in fake tensors, which answer more questions than meta ones."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): mode.from_tensor(tensor) for tensor in tensors}).eval()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Turn off the fused path of `nn.MultiheadAttention`, which hides its operations."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class Recorder(TorchDispatchMode):
    """Label the outputs of every operation, and note it as a step."""

    def __init__(self, labels: Labels, guarded: set[int]) -> None:
        super().__init__()
        self.labels, self.guarded = labels, guarded
        self.touched: set[int] = set()
        self.steps: list[Step] = []
        self.streams = Streams()
        self.path: list[str] = [""]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and label what comes out."""
        kwargs = kwargs or {}
        self._guard(func, args)
        out = func(*args, **kwargs)
        call = bind(func, args, kwargs, out)
        self.touched.update(id(tensor) for tensor in call.tensors)
        apply_rule(self.labels, call)
        self.streams.follow(call)
        outputs = call.outputs
        if outputs:
            self._note(func, args, kwargs, call.name, out, outputs[0])
        return out

    def _guard(self, func: Any, args: Any) -> None:
        writes = func._schema.is_mutable and args and isinstance(args[0], Tensor)
        if writes and args[0].untyped_storage()._cdata in self.guarded:
            raise ParameterChanged

    def _note(self, func: Any, args: Any, kwargs: Any, name: str, out: Any, first: Tensor) -> None:
        macs = _macs(func, args, kwargs, out)
        step = Step(self.path[-1], name, tuple(first.shape), macs)
        if name in ATTENTION:
            self._note_attention(args, first, name)
            return
        if name == "mkldnn_rnn_layer":
            self._note_recurrent(args, first, name)
            return
        if macs or name == "embedding":
            step.axes = [*self.labels.of(first), *self.labels.contracted]
            step.sizes = [int(size) for size in first.shape]
            step.sizes += [len(axis[0]) if axis else 1 for axis in self.labels.contracted]
        self.steps.append(step)

    def _note_attention(self, args: Any, out: Tensor, name: str) -> None:
        """Note the two products of an attention, which sum over features and over tokens."""
        labels, (query, key) = self.labels, args[:2]
        pairs = out.numel() // out.shape[-1] * key.shape[-2]
        for width, last in ((query.shape[-1], query), (out.shape[-1], out)):
            step = Step(self.path[-1], name, tuple(out.shape), pairs * int(width))
            step.axes = [*labels.of(out)[:-1], labels.of(last)[-1]]
            step.sizes = [*(int(n) for n in out.shape[:-1]), int(width)]
            self.steps.append(step)

    def _note_recurrent(self, args: Any, out: Tensor, name: str) -> None:
        """Note the two products of a fused recurrent layer: of the inputs, and of the hidden units."""
        rows = self.labels.of(out)
        for weight in args[1:3]:
            steps = int(out.shape[0] * out.shape[1])
            step = Step(self.path[-1], name, tuple(out.shape), steps * weight.numel())
            step.axes = [*rows, self.labels.of(weight)[1]]
            step.sizes = [*(int(n) for n in out.shape), int(weight.shape[1])]
            self.steps.append(step)

    def watch(self, model: nn.Module) -> None:
        """Follow which module of `model` is running, and what goes in and out of it."""
        scripts = torch.jit.ScriptModule  # these take no hooks
        plain = [(name, module) for name, module in model.named_modules() if not isinstance(module, scripts)]
        for name, module in plain:
            module.register_forward_pre_hook(self._enter(name), with_kwargs=True, prepend=True)
            module.register_forward_hook(self._leave(name), with_kwargs=True, always_call=True)

    def _enter(self, name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.path.append(name)
            self.streams.enter(name, (args, kwargs))

        return hook

    def _leave(self, name: str) -> Any:
        def hook(_: nn.Module, _args: Any, _kwargs: Any, out: Any) -> None:
            if len(self.path) > 1:
                self.path.pop()
            self.streams.leave(name, out)

        return hook


def _macs(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    counter = flop_registry.get(func._overloadpacket)
    return int(counter(*args, **kwargs, out_val=out)) // 2 if counter is not None else 0


#: Operations through which a skip connection still is one.
PASSES = {
    "clone",
    "relu",
    "relu_",
    "native_layer_norm",
    "dropout",
    "_to_copy",
    "view",
    "contiguous",
    "alias",
    "detach",
}


class Streams:
    """Which inputs of modules reach which tensors through additions alone."""

    def __init__(self) -> None:
        self.reach: dict[int, dict[int, bool]] = {}
        self.inputs: dict[str, list[Tensor]] = {}
        self.blocks: dict[str, bool] = {}
        self.branches: set[str] = set()
        self.givers: dict[int, str] = {}
        self.widths: dict[str, int] = {}

    def enter(self, name: str, given: Any) -> None:
        """Note the first tensor that a module gets."""
        first = next(_floats(given), None)
        self.inputs.setdefault(name, [])
        if first is not None:
            self.inputs[name].append(first)
            self.reach.setdefault(id(first), {}).setdefault(id(first), False)

    def leave(self, name: str, out: Any) -> None:
        """Note whether a module's output is its input plus something of the same shape."""
        given, made = self.inputs.get(name), next(_floats(out), None)
        source = given.pop() if given else None
        adds = False
        if source is not None and made is not None and source.shape == made.shape:
            adds = self.reach.get(id(made), {}).get(id(source), False)
            self.givers[id(made)] = name
        self.blocks[name] = adds and self.blocks.get(name, True)
        self.widths[name] = len(out) if isinstance(out, tuple) else 0

    def follow(self, call: Any) -> None:
        """Carry the reach of the operands of additions, and of operations that keep a stream."""
        adds = call.name in ("add", "add_")
        if not adds and call.name not in PASSES:
            return
        self._branch(call, adds)
        reach: dict[int, bool] = {}
        for tensor in call.tensors[: 2 if adds else 1]:
            for source, added in self.reach.get(id(tensor), {}).items():
                reach[source] = reach.get(source, False) or added or adds
        if reach:
            for out in call.outputs[:1]:
                self.reach[id(out)] = reach | self.reach.get(id(out), {})

    def _branch(self, call: Any, adds: bool) -> None:
        """Note the modules whose output is added to a stream; what only passes on has the same giver."""
        tensors = call.tensors[:2]
        if not adds:
            giver = self.givers.get(id(tensors[0])) if tensors else None
            for out in call.outputs[:1] if giver else ():
                self.givers[id(out)] = giver or ""
            return
        for given, stream in (tensors, tensors[::-1]) if len(tensors) == 2 else ():
            if id(given) in self.givers and id(stream) in self.reach and given.shape == stream.shape:
                self.branches.add(self.givers[id(given)])


def _floats(value: Any) -> Iterator[Tensor]:
    return (t for t in tensors_of(value) if t.is_floating_point())
