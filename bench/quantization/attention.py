"""Whether the products of attention are worth integers: `python -m bench.quantization.attention [part]...`.

The parts are `products`, alone in ONNX Runtime, and `networks`, whole ones in OpenVINO. Writes
bench/results/quantization_attention.{json,md}, where a part that is not asked for keeps its numbers.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.quantization.attention_networks import LENGTHS, NetworkRow, measure_networks
from bench.quantization.contest import CACHE, RESULTS, times
from tersor.exporting.artefact import Session
from tersor.measurement.machine import this_machine
from tersor.quantization.hardware import detect

#: Of MiniLM.
HEADS, WIDTH, LAYERS = 12, 32, 6
TITLE = """## Products in ONNX Runtime

`softmax(q k^T) v` of {heads} heads of {width}, one sample, in ONNX Runtime {version} on one thread; `q` is scaled.
Processor time of one call, medians over {rounds} rounds in which every file runs once, least and most over
{repeats} repetitions. Floating point in and out: what the layers around give and take. From codes: `q`, `k` and `v`
arrive as codes, which costs nothing here, so that it is the best that integers could do. Integers are unsigned on the
left and signed on the right, the fastest pair. Speed: against floating point; below 1 is slower.
Gain: what all {layers} layers together would save, as a share of the time of the whole MiniLM with dynamic integers on
one sentence of this length, timed in turns with the rounds.

Processor: {processor} ({features}).
"""
NETWORKS = """## Whole networks in OpenVINO

Static 8-bit integers made for OpenVINO {version}, batch 1, one thread; every layer with a weight in integers, and the
products of attention as the column says. Queries and keys: what `scheme_for(..., "static", "openvino")` rounds.
Shares and values: rounded in the written file, for their time alone. Processor time of a call: medians over
{rounds} rounds in which every file runs in turn, of the least of 10 calls in succession; speed against the file whose
attention is in floating point, least and most over {repeats} repetitions; below 1 is slower. Kernels: of OpenVINO's
fused parts, attention among them.
What rounding costs in accuracy is in quantization_fidelity.md.

Processor: {processor} ({features}).
"""

#: Name of a value -> its step; codes are unsigned on the left of a product (zero point 128, or 0 for shares).
_STEPS = {"q": 0.03, "k": 0.03, "v": 0.03, "shares": 1 / 255, "scores": 0.1, "mixed": 0.03}
_KINDS = {
    "q": (np.uint8, 128), "shares": (np.uint8, 0), "k": (np.int8, 0), "v": (np.int8, 0),
    "scores": (np.uint8, 128), "mixed": (np.uint8, 128),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What was found of one file; speeds are against floating point, and the gain is a share of the network's time."""

    tokens: int
    file: str
    products: str
    median_s: float
    slowest: float
    fastest: float
    gain: float


class Writer:
    """An ONNX graph of attention over `tokens` places, written node by node."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.nodes, self.constants = tokens, [], []

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes) -> list[str]:
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def grid(self, name: str) -> tuple[str, str]:
        dtype, zero = _KINDS[name]
        step = numpy_helper.from_array(np.float32(_STEPS[name]), f"{name}_step_{len(self.constants)}")
        origin = numpy_helper.from_array(dtype(zero), f"{name}_zero_{len(self.constants)}")
        self.constants += [step, origin]
        return step.name, origin.name

    def codes(self, value: str, name: str) -> str:
        return self.node("QuantizeLinear", value, *self.grid(name))[0]

    def values(self, codes: str, name: str) -> str:
        return self.node("DequantizeLinear", codes, *self.grid(name))[0]

    def rounded(self, value: str, name: str) -> str:
        """Return `value` on its grid, as runtimes recognize it."""
        return self.values(self.codes(value, name), name)

    def dynamic(self, left: str, right: str) -> str:
        """Return the product of two values whose ranges are taken at run time."""
        a, a_step, a_zero = self.node("DynamicQuantizeLinear", left, outputs=3)
        b, b_step, b_zero = self.node("DynamicQuantizeLinear", right, outputs=3)
        (sums,) = self.node("MatMulInteger", a, b, a_zero, b_zero)
        (values,) = self.node("Cast", sums, to=TensorProto.FLOAT)
        return self.node("Mul", values, self.node("Mul", a_step, b_step)[0])[0]

    def model(self, result: str, kinds: Mapping[str, int]) -> onnx.ModelProto:
        shape = [1, HEADS, self.tokens, WIDTH]
        inputs = [helper.make_tensor_value_info(name, kind, shape) for name, kind in kinds.items()]
        outputs = [helper.make_tensor_value_info(result, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, "attention", inputs, outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


_FLOAT = dict.fromkeys("qkv", TensorProto.FLOAT)
_CODES = {"q": TensorProto.UINT8, "k": TensorProto.INT8, "v": TensorProto.INT8}


def floating(tokens: int) -> onnx.ModelProto:
    writer = Writer(tokens)
    (keys,) = writer.node("Transpose", "k", perm=[0, 1, 3, 2])
    (shares,) = writer.node("Softmax", writer.node("MatMul", "q", keys)[0], axis=-1)
    return writer.model(writer.node("MatMul", shares, "v")[0], _FLOAT)


def static(tokens: int, *, codes: bool = False, between: bool = False) -> onnx.ModelProto:
    """Ranges from calibration; `codes`: codes arrive; `between`: the products give codes as well."""
    writer = Writer(tokens)
    held = {name: name if codes else writer.codes(name, name) for name in "qkv"}
    (held["k"],) = writer.node("Transpose", held["k"], perm=[0, 1, 3, 2])
    q, keys, v = (writer.values(held[name], name) for name in "qkv")
    (scores,) = writer.node("MatMul", q, keys)
    scores = writer.rounded(scores, "scores") if between else scores
    shares = writer.rounded(writer.node("Softmax", scores, axis=-1)[0], "shares")
    (mixed,) = writer.node("MatMul", shares, v)
    mixed = writer.rounded(mixed, "mixed") if between else mixed
    return writer.model(mixed, _CODES if codes else _FLOAT)


def dynamic(tokens: int) -> onnx.ModelProto:
    writer = Writer(tokens)
    (keys,) = writer.node("Transpose", "k", perm=[0, 1, 3, 2])
    (shares,) = writer.node("Softmax", writer.dynamic("q", keys), axis=-1)
    return writer.model(writer.dynamic(shares, "v"), _FLOAT)


FILES: dict[str, Callable[[int], onnx.ModelProto]] = {
    "floating point": floating,
    "static": static,
    "static, codes between": lambda tokens: static(tokens, between=True),
    "static, from codes": lambda tokens: static(tokens, codes=True),
    "static, from codes, codes between": lambda tokens: static(tokens, codes=True, between=True),
    "dynamic": dynamic,
}


def opened(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def kernels(model: onnx.ModelProto, folder: Path) -> str:
    """Return the products of the optimised graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "optimised.onnx").graph.node
    return ", ".join(node.op_type for node in nodes if "MatMul" in node.op_type)


def arrays(name: str, tokens: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    real = [generator.standard_normal((1, HEADS, tokens, WIDTH)).astype(np.float32) for _ in "qkv"]
    if "from codes" not in name:
        return real
    return [_coded(x, name) for x, name in zip(real, "qkv", strict=True)]


def _coded(x: np.ndarray, name: str) -> np.ndarray:
    dtype, zero = _KINDS[name]
    limits = np.iinfo(dtype)
    return np.clip(np.round(x / _STEPS[name]) + zero, limits.min, limits.max).astype(dtype)


def measure(tokens: int, rounds: int, repeats: int) -> list[Row]:
    models = {name: make(tokens) for name, make in FILES.items()}
    runs = {name: _running(opened(model), arrays(name, tokens)) for name, model in models.items()}
    # The network has rounds of its own: whatever ran after it would find the caches full of weights.
    network = {"whole": _network(tokens)}
    found = [times(runs, [], rounds) | times(network, [], rounds // 4) for _ in range(repeats)]
    with tempfile.TemporaryDirectory() as folder:
        products = {name: kernels(model, Path(folder)) for name, model in models.items()}
    rows = []
    for name in FILES:
        speeds = [each["floating point"] / each[name] for each in found]
        gains = [LAYERS * (each["floating point"] - each[name]) / each["whole"] for each in found]
        seconds = float(np.median([each[name] for each in found]))
        gain = float(np.median(gains))
        rows.append(Row(tokens, name, products[name], seconds, min(speeds), max(speeds), gain))
    return rows


def _running(session: onnxruntime.InferenceSession, inputs: Sequence[np.ndarray]) -> Session:
    feed = {value.name: array for value, array in zip(session.get_inputs(), inputs, strict=True)}
    return lambda _: session.run(None, feed)


def _network(tokens: int) -> Session:
    """Return MiniLM with dynamic integers, which `python -m bench.quantization minilm` writes, on one sentence."""
    session = opened(onnx.load(CACHE / "minilm" / "tersor_dynamic.onnx"))
    return _running(session, [np.ones((1, tokens), np.int64)] * 2)


def write(part: str, rows: Sequence[Row | NetworkRow], rounds: int, repeats: int) -> None:
    """Put the rows of one part into the results, as data and as a table."""
    runtime = onnxruntime if part == "products" else import_module("openvino")
    found = {
        "rounds": rounds,
        "repeats": repeats,
        "runtime": runtime.__version__.split("-")[0],
        "machine": asdict(this_machine()),
        "features": sorted(detect().features),
        "rows": [asdict(row) for row in rows],
    }
    record = RESULTS / "quantization_attention.json"
    document = json.loads(record.read_text()) if record.exists() else {}
    document = json.loads(json.dumps({**document, part: found}, default=str))
    record.write_text(json.dumps(document, indent=1) + "\n")
    lines = ["# The products of attention in integers", ""]
    for each in TABLES:
        lines += _table(each, document[each]) if each in document else []
    record.with_suffix(".md").write_text("\n".join(lines).rstrip() + "\n")
    print("\n".join(_table(part, document[part])))


def _table(part: str, found: Mapping[str, Any]) -> list[str]:
    title, head, line = TABLES[part]
    title = title.format(
        heads=HEADS, width=WIDTH, layers=LAYERS, version=found["runtime"], rounds=found["rounds"],
        repeats=found["repeats"], processor=found["machine"]["processor"], features=", ".join(found["features"]),
    )  # fmt: skip
    rule = "|---" * head.count(" | ") + "|---|"
    return [title, f"| {head} |", rule, *(f"| {line(row)} |" for row in found["rows"]), ""]


#: Part -> title, head of the table, and a line of it.
TABLES: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], str]]] = {
    "products": (
        TITLE,
        "tokens | file | products | median (ms) | speed, least | most | gain (%)",
        lambda r: (
            f"{r['tokens']} | {r['file']} | {r['products']} | {1e3 * r['median_s']:.3f} | {r['slowest']:.2f} | "
            f"{r['fastest']:.2f} | {100 * r['gain']:.1f}"
        ),
    ),
    "networks": (
        NETWORKS,
        "network | length | in integers | kernels | median (ms) | speed, least | most",
        lambda r: (
            f"{r['network']} | {r['length']} | {r['products']} | {r['kernels']} | {1e3 * r['median_s']:.3f} | "
            f"{r['slowest']:.2f} | {r['fastest']:.2f}"
        ),
    ),
}


def main() -> None:
    """Time every file at every length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(TABLES))
    parser.add_argument("--networks", nargs="*", default=list(LENGTHS))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    if "products" in options.parts:
        rows = [row for tokens in (24, 64, 128) for row in measure(tokens, options.rounds, options.repeats)]
        write("products", rows, options.rounds, options.repeats)
    if "networks" in options.parts:
        for rows in measure_networks(options.networks, options.rounds, options.repeats):
            write("networks", rows, options.rounds, options.repeats)


if __name__ == "__main__":
    main()
