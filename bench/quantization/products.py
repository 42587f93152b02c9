"""The integer products of a file in ONNX Runtime's optimised graph, one by one, against the simulation's layers."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from tersor.exporting.artefact import Artefact
from tersor.quantization.fidelity import sqnr
from tersor.quantization.grid import QSpec, decode, encode, place_dynamic

_CODES = QSpec(0, 255, dynamic=True)


@dataclass(frozen=True)
class Product:
    """One product: names of what it reads and gives, in floating point, and of its constants.

    Attributes:
        reads: the tensor that is rounded.
        gives: the product.
        weight: names of codes, steps, zero points and bias; the last two may be empty.
        grid: names of step and zero point of what it reads; empty where they are taken at run time.
    """

    reads: str
    gives: str
    weight: tuple[str, str, str, str]
    grid: tuple[str, ...] = ()


def products(artefact: Artefact, arrays: Sequence[np.ndarray]) -> list[float]:
    """Return for each integer product how close it is to the simulation's layer on what the file itself gave it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        _session(artefact.path, "ORT_ENABLE_ALL", path)
        graph = onnx.load(path)
        found = _products(graph.graph)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
        names = {name for product in found for name in (product.reads, product.gives)}
        for name in names - {value.name for value in graph.graph.output}:
            graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        onnx.save(graph, path)
        session = _session(path, "ORT_DISABLE_ALL")
        inputs = [value.name for value in session.get_inputs()]
        wanted = sorted(names)
        values = session.run(wanted, dict(zip(inputs, arrays, strict=True))) if wanted else []
    tensors = constants | dict(zip(wanted, values, strict=True))
    return [sqnr(_simulated(product, tensors), tensors[product.gives]) for product in found]


def _session(path: Path, level: str, written: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    if written is not None:
        options.optimized_model_filepath = str(written)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _products(graph: onnx.GraphProto) -> list[Product]:
    makers = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        read = [*node.input, "", ""]
        maker = makers.get(read[0])
        if node.op_type == "DynamicQuantizeMatMul":
            found.append(Product(read[0], node.output[0], (read[1], read[2], read[3], read[4])))
        elif node.op_type == "MatMulIntegerToFloat" and maker and maker.op_type.endswith("QuantizeLinear"):
            grid = () if maker.op_type.startswith("Dynamic") else (maker.input[1], maker.input[2])
            weight = (read[1], read[3], read[5], read[6])
            found.append(Product(maker.input[0], node.output[0], weight, grid))
    return found


def _simulated(product: Product, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Return what the simulation computes, in double precision from the codes on."""
    x = torch.from_numpy(tensors[product.reads])
    step, zero = place_dynamic(x, _CODES)
    if product.grid:
        step, zero = (torch.from_numpy(np.array(tensors[name])).to(x.dtype) for name in product.grid)
    values = decode(encode(x, step, zero, _CODES), step, zero, _CODES).double().numpy()
    codes, steps, zeros, bias = (tensors[name].astype(np.float64) if name else 0.0 for name in product.weight)
    return values @ ((codes - zeros) * steps) + bias
