"""Copies of a file with fewer channels, to be timed: outputs mean nothing, the latency is that of a real cut."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tersor.errors import PlanError
from tersor.exporting.artefact import Artefact
from tersor.graph.solve import solve
from tersor.graph.structure import Graph

#: Names under which exported files hold a parameter, once its dots are underscores; and a part of the name of one that
#: they hold transposed.
_STEMS = ("model_{}", "model_quantizers_{}_codes_codes", "{}")
_TURNED = "model_quantizers_{}_codes_"
#: An integer of the code that files have in one place: of depthwise convolutions.
_FOLLOWED = ".groups"

#: For each axis of a tensor which indices stay.
Keeps: TypeAlias = tuple[np.ndarray, ...]


def thinned(artefact: Artefact, graph: Graph, kept: Mapping[str, int], path: Path) -> Artefact:
    """Write a copy of an ONNX file in which groups keep only some of their units, the first ones.

    Weights are sliced inside the file, so no model is built, calibrated or exported.

    Args:
        artefact: file of the traced model, in floating point or integers.
        graph: the trace.
        kept: units left of each group.
        path: file to write.

    Raises:
        PlanError: if it is no ONNX file, a weight that changes is not found in it under its name, or integers in the
            code of the model change too, such as numbers of heads: the file may have them in any of its nodes.
    """
    if artefact.path.suffix != ".onnx":
        raise PlanError(f"{artefact.path.name} is no ONNX file, and only those can be sliced.")
    sizes = map(str, solve(graph, {name: range(count) for name, count in kept.items()}))
    if changed := [size for size in sizes if not size.endswith(_FOLLOWED)]:
        raise PlanError(f"{changed[0]} would change, an integer in the code of the model.")
    import onnx
    from onnx import numpy_helper

    model = onnx.load(artefact.path)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    sources = _sources(held, _keeps(graph, kept))
    changed = {name: _sliced(held[name], keeps) for name, keeps in sources.items()}
    for node, before, after in _followers(model.graph.node, held, sources):
        for attribute in node.attribute:
            if attribute.name == "group" and attribute.i == before:
                attribute.i = after
        for index, name in enumerate(node.input):
            if name in held and name not in sources and held[name].shape == (before,):
                node.input[index] = fresh = f"{name}_of_{node.output[0]}"
                changed[fresh] = held[name][:after]
    _reshape_freely(model.graph.node, held, changed)
    everything = held | changed
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(v.copy(), k) for k, v in everything.items())
    del model.graph.value_info[:]
    onnx.save(model, path)
    return replace(artefact, path=path, size_bytes=path.stat().st_size)


def _keeps(graph: Graph, kept: Mapping[str, int]) -> dict[str, Keeps]:
    """Return for each parameter with a changed axis which indices of each axis stay."""
    removed = graph.removed({name: range(count) for name, count in kept.items()})
    axes: dict[str, dict[int, np.ndarray]] = {}
    for (name, axis), extent in graph.extents.items():
        axes.setdefault(name, {})[axis] = extent.kept(removed)
    return {
        name: tuple(found[axis] for axis in sorted(found))
        for name, found in axes.items()
        if name in graph.sizes and not all(stays.all() for stays in found.values())
    }


def _sources(held: Mapping[str, np.ndarray], keeps: Mapping[str, Keeps]) -> dict[str, Keeps]:
    """Return which indices stay on each axis of each tensor of the file that holds a parameter which changes.

    Raises:
        PlanError: if a matrix or kernel that changes is not in the file.
    """
    plain = {_plain(name): name for name in held}
    found: dict[str, Keeps] = {}
    for parameter, axes in keeps.items():
        own, shape = _plain(parameter), tuple(len(stays) for stays in axes)
        names = [plain[name] for stem in _STEMS if (name := stem.format(own)) in plain]
        turned = [
            name for key, name in plain.items() if _TURNED.format(own) in key and key.endswith("_codes")
        ]
        fitting = [name for name in names if held[name].shape == shape]
        fitting += [name for name in turned if name not in names and held[name].shape == shape[::-1]]
        if fitting:
            found[fitting[0]] = axes if fitting[0] in names else axes[::-1]
        elif len(shape) > 1:
            raise PlanError(f"The file does not hold {parameter!r} under its name.")
    return found


def _plain(name: str) -> str:
    """Return a name with one underscore wherever it has dots or underscores."""
    return re.sub(r"[._]+", "_", name)


def _sliced(values: np.ndarray, keeps: Keeps) -> np.ndarray:
    for axis, stays in enumerate(keeps):
        values = values.compress(stays, axis=axis)
    return values


def _followers(
    nodes: Sequence, held: Mapping[str, np.ndarray], sources: Mapping[str, Keeps]
) -> Iterator[tuple[Any, int, int]]:
    """Give the nodes with vectors along the outputs of a weight that changes, with their lengths before and after."""
    made_by = {output: node for node in nodes for output in node.output}
    for node in nodes:
        makers = [made_by[name] for name in node.input if name in made_by]
        prepared = [maker.input[0] for maker in makers if maker.input and maker.input[0] in sources]
        read = [name for name in node.input if name in sources]
        stepped = [f"{name.removesuffix('_step')}_codes" for name in node.input if name.endswith("_step")]
        for weight in (*read, *prepared, *(name for name in stepped if name in sources)):
            if held[weight].ndim < 2:
                continue
            outputs = _outputs(weight, sources[weight])
            before, after = len(outputs), int(outputs.sum())
            yield node, before, after
            yield from (
                (maker, before, after) for maker in makers if all(part in held for part in maker.input)
            )


def _outputs(weight: str, keeps: Keeps) -> np.ndarray:
    """Return which outputs of a weight stay: its first axis, the last one of a matrix that the file holds turned."""
    turned = "_weight_codes_" in weight and not weight.endswith("_weight_codes_codes")
    return keeps[-1 if turned else 0]


def _reshape_freely(nodes: Sequence, held: Mapping[str, np.ndarray], changed: dict[str, np.ndarray]) -> None:
    """Let a flattening to (batch, features) find out its features by itself."""
    for node in nodes:
        shape = held.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and shape.shape == (2,) and shape[0] in (-1, 0):
            changed[node.input[1]] = np.array([0, -1], np.int64)
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
