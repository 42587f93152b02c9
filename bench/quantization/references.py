"""The same networks quantized by ONNX Runtime's own tool, NNCF and torchao, in the ways their documentation names."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from bench.quantization.contest import Arrays, Contender, Maker
from tersor.exporting.artefact import Artefact
from tersor.exporting.files import sha256_of


class Reader(CalibrationDataReader):
    """Feed calibration batches."""

    def __init__(self, names: Sequence[str], batches: Sequence[Arrays]) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter(
            [dict(zip(names, batch, strict=True)) for batch in batches]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


@dataclass(frozen=True)
class Setting:
    """One call of `quantize_static`."""

    activation: QuantType
    weight: QuantType
    per_channel: bool
    reduce_range: bool


#: Its defaults, then what its documentation advises for x86-64 with and without VNNI.
SETTINGS: dict[str, Setting] = {
    "onnxruntime s8s8 (defaults)": Setting(QuantType.QInt8, QuantType.QInt8, False, False),
    "onnxruntime u8s8 per channel": Setting(QuantType.QUInt8, QuantType.QInt8, True, False),
    "onnxruntime u8s8 per channel, reduce_range": Setting(QuantType.QUInt8, QuantType.QInt8, True, True),
}


def made(path: Path, runtime: str, write: Callable[[], object], **options) -> Contender:
    began = time.process_time()
    write()
    seconds = time.process_time() - began
    size = path.stat().st_size
    weights = path.with_suffix(".bin")
    size += weights.stat().st_size if weights.exists() else 0
    return Contender(Artefact(runtime, path, size, sha256_of(path), options), seconds)


def prepared(float_file: Path, ready: Path) -> Path:
    """Write the file after ONNX Runtime's preparation; where that cannot tell shapes, without the stored ones.

    Stored shapes of weights stop the quantizer for dynamic ranges: it transposes weights and keeps the shapes.
    """
    import onnx

    try:
        with chdir(ready.parent):  # it leaves files where it runs
            quant_pre_process(float_file, ready)
    except Exception:  # it raises nothing more special
        model = onnx.load(float_file)
        del model.graph.value_info[:]
        onnx.save(model, ready)
    return ready


def onnxruntime_static(float_file: Path, names: Sequence[str], batches: Sequence[Arrays]) -> dict[str, Maker]:
    """Return one maker for each setting."""

    def maker(setting: Setting) -> Maker:
        def make(path: Path) -> Contender:
            ready = prepared(float_file, path.with_suffix(".prepared"))
            return made(path, "onnxruntime", lambda: quantize_static(
                ready, path, Reader(names, batches), quant_format=QuantFormat.QDQ, per_channel=setting.per_channel,
                reduce_range=setting.reduce_range, activation_type=setting.activation, weight_type=setting.weight,
            ))  # fmt: skip

        return make

    return {label: maker(setting) for label, setting in SETTINGS.items()}


def onnxruntime_dynamic(float_file: Path) -> dict[str, Maker]:
    def make(path: Path) -> Contender:
        ready = prepared(float_file, path.with_suffix(".prepared"))
        write = lambda: quantize_dynamic(ready, path, per_channel=True, weight_type=QuantType.QInt8)
        return made(path, "onnxruntime", write)

    return {"onnxruntime dynamic": make}


def onnxruntime_blocks(float_file: Path) -> dict[str, Maker]:
    """Return ONNX Runtime's rounding of weights to 4 bits in blocks of 32."""

    def write(path: Path) -> None:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        logging.getLogger("onnxruntime").setLevel(logging.WARNING)
        model = onnx.load(float_file)
        quantizer = MatMulNBitsQuantizer(model, block_size=32, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))

    return {"onnxruntime 4 bits, blocks of 32": lambda path: made(path, "onnxruntime", lambda: write(path))}


def nncf_openvino(
    float_file: Path, names: Sequence[str], batches: Sequence[Arrays], *, transformer: bool
) -> dict[str, Maker]:
    """Return NNCF's `quantize` on an OpenVINO model, with its defaults for the kind of network."""

    def write(path: Path) -> None:
        import nncf
        import openvino

        data = nncf.Dataset([dict(zip(names, batch, strict=True)) for batch in batches])
        kind = nncf.ModelType.TRANSFORMER if transformer else None
        model = openvino.Core().read_model(float_file)
        openvino.save_model(nncf.quantize(model, data, model_type=kind), path, compress_to_fp16=False)

    def make(path: Path) -> Contender:
        path = path.with_suffix(".xml")
        return made(path, "openvino", lambda: write(path), precision="f32")

    return {"NNCF in OpenVINO": make}


def torchao_inductor(model, batches: Sequence[Arrays]) -> dict[str, Maker]:
    """Return torchao's PT2E with its quantizer for Inductor, compiled ahead of time."""

    def write(path: Path) -> None:
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        tensors = [tuple(torch.from_numpy(array) for array in batch) for batch in batches]
        shapes = (tuple({0: torch.export.Dim.DYNAMIC} for _ in tensors[0]),)
        capture = lambda module: torch.export.export(
            module, tensors[0], dynamic_shapes=shapes[0], strict=True
        )
        settings = x86.get_default_x86_inductor_quantization_config()
        with torch.no_grad():
            observed = prepare_pt2e(
                capture(model.eval()).module(), x86.X86InductorQuantizer().set_global(settings)
            )
            for batch in tensors:
                observed(*batch)
            with path.open("wb") as file:
                torch._inductor.aoti_compile_and_package(
                    capture(_Tuple(convert_pt2e(observed))),
                    package_path=file,
                    inductor_configs={"freezing": True},
                )

    make = lambda path: made(path.with_suffix(".pt2"), "aotinductor", lambda: write(path.with_suffix(".pt2")))
    return {"torchao PT2E in AOTInductor": make}


class _Tuple(torch.nn.Module):
    """A module of one input with its one output in a tuple, as files have it."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.module(x),)
