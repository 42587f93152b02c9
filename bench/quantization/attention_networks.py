"""What whole networks gain in OpenVINO when the products of their attention run in integers; see `attention`."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bench.quantization.fidelity import NAMES, SUBJECTS, Subject
from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.export import export
from tersor.exporting.runtimes import RUNTIMES
from tersor.loading.inputs import to_numpy
from tersor.quantization.hardware import detect, scheme_for
from tersor.quantization.quantize import quantize

#: Network -> lengths of its input: patches, characters, and tokens of a sentence.
LENGTHS = {"vit": (64,), "gpt": (64,), "minilm": (24, 64, 128)}
#: Calls of one file in succession; the first finds the caches full of another file's weights.
CALLS = 10
FILES = ("floating point", "queries and keys", "shares and values", "all four")


@dataclass(frozen=True)
class NetworkRow:
    """What was found of one file; speeds are against the file whose attention is in floating point."""

    network: str
    length: int
    products: str
    kernels: str
    median_s: float
    slowest: float
    fastest: float


def measure_networks(names: Sequence[str], rounds: int, repeats: int) -> Iterator[list[NetworkRow]]:
    """Quantize each network with and without, and time the files in turns; give the rows so far after each network."""
    rows = []
    for name in names:
        lengths = LENGTHS[name]
        with tempfile.TemporaryDirectory() as folder:
            subject = SUBJECTS[name]()
            files = _files(subject, Path(folder))
            sessions = {kind: RUNTIMES["openvino"].open(file, threads=1) for kind, file in files.items()}
            kernels = {kind: _kernels(file) for kind, file in files.items()}
        sample = to_numpy(subject.calls[1][0])
        for length in lengths:
            call = sample if len(lengths) == 1 else [np.ones((1, length), np.int64)] * 2
            rows += _rows(name, length, _found(sessions, call, rounds, repeats), kernels)
        yield rows


def _files(subject: Subject, folder: Path) -> Mapping[str, Artefact]:
    scheme = scheme_for(detect(), "static", "openvino")
    made = {}
    for kind, codes in (("floating point", None), ("queries and keys", scheme.scores)):
        small = quantize(
            subject.model, subject.example, subject.calibration, scheme=replace(scheme, scores=codes)
        )
        made[kind] = export(small, subject.example, folder / f"{len(made)}.onnx", "openvino", check=False)
    for kind, source in (("shares and values", "floating point"), ("all four", "queries and keys")):
        made[kind] = replace(made[source], path=folder / f"{len(made)}.onnx")
        round_shares(made[source].path, made[kind].path)
    return made


def round_shares(source: Path, target: Path) -> None:
    """Write the network with the shares and the values of each attention rounded as well."""
    model = onnx.load(source)
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and makers.get(node.input[0]) in ("Softmax", "Where"):
            node.input[0] = _rounded(model, nodes, node.input[0], np.uint8(0), 1 / 255)
            node.input[1] = _rounded(model, nodes, node.input[1], np.int8(0), 0.02)
        nodes.append(node)
    assert len(nodes) > len(model.graph.node), "the file has no attention"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def _rounded(model: onnx.ModelProto, nodes: list[onnx.NodeProto], value: str, zero: Any, step: float) -> str:
    """Add a value on a grid of 8 bits to `nodes`, and return its name; where the grid lies does not change the time."""
    name = f"{value}_on_grid_{len(nodes)}"
    grid = {f"{name}_step": np.float32(step), f"{name}_zero": zero}
    model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in grid.items())
    nodes += [
        helper.make_node("QuantizeLinear", [value, *grid], [f"{name}_codes"]),
        helper.make_node("DequantizeLinear", [f"{name}_codes", *grid], [name]),
    ]
    return name


def _kernels(file: Artefact) -> str:
    """Return the kinds of kernels that OpenVINO computes its fused parts with, attention among them, and how many."""
    import openvino

    compiled = openvino.Core().compile_model(str(file.path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    found = [
        fact["primitiveType"].astype(str) for fact in facts if fact["layerType"].astype(str) == "Subgraph"
    ]
    return ", ".join(f"{found.count(kind)} {kind}" for kind in sorted(set(found)))


def _found(
    sessions: Mapping[str, Session], call: Sequence[np.ndarray], rounds: int, repeats: int
) -> list[dict[str, float]]:
    return [_in_turns(sessions, call, rounds) for _ in range(repeats)]


def _in_turns(sessions: Mapping[str, Session], call: Sequence[np.ndarray], rounds: int) -> dict[str, float]:
    """Return the processor time of a call: medians over rounds of the least of some calls in succession."""
    seen: dict[str, list[float]] = {kind: [] for kind in sessions}
    for _ in range(rounds):
        for kind, session in sessions.items():
            taken = []
            for _ in range(CALLS):
                began = time.process_time()
                session(call)
                taken.append(time.process_time() - began)
            seen[kind].append(min(taken))
    return {kind: float(np.median(values)) for kind, values in seen.items()}


def _rows(
    name: str, length: int, found: list[dict[str, float]], kernels: Mapping[str, str]
) -> list[NetworkRow]:
    rows = []
    for kind in FILES:
        speeds = [each["floating point"] / each[kind] for each in found]
        seconds = float(np.median([each[kind] for each in found]))
        rows.append(NetworkRow(NAMES[name], length, kind, kernels[kind], seconds, min(speeds), max(speeds)))
    return rows
