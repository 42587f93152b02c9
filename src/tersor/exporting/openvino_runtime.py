"""The `openvino` runtime: one `.onnx` file, run by OpenVINO on the processor. An extra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tersor._extras import require
from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.runtimes import runtime

if TYPE_CHECKING:
    from tersor.exporting.program import Program
    from tersor.quantization.model import QuantizedModel


@runtime
@dataclass(frozen=True, slots=True)
class OpenVino:
    """OpenVINO on the processor.

    Options of its artefacts:
        precision: type that floating-point operations run in: `f32`, or `bf16` where the processor has it.
        input_block: neighbours that share a step where products with integer weights round what they read; 0 for none.

    Source:
        https://docs.openvino.ai/ (inference devices, CPU)
    """

    name: str = "openvino"

    def missing(self) -> str:
        """Return the package, if it is not installed."""
        return "" if find_spec("openvino") else "`openvino` (pip install 'tersor[openvino]')"

    def write(self, program: "Program", path: Path) -> Mapping[str, object]:
        """Write an ONNX file, without what OpenVINO has no kernel for, reads wrongly or is slow at."""
        from tersor.exporting.integers import keep_axes, make_unsigned, swap_rounded
        from tersor.exporting.onnx_file import write_onnx

        write_onnx(program, path, (make_unsigned, keep_axes, swap_rounded))
        return {"precision": "f32", "input_block": input_block(program.rounded)}

    def open(self, artefact: Artefact, *, threads: int) -> Session:
        """Compile the file for lowest latency on `threads` threads, in one stream."""
        openvino = require("openvino", extra="openvino", purpose="Running a file in OpenVINO")
        core = openvino.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": "1",
            "INFERENCE_PRECISION_HINT": str(artefact.options.get("precision", "f32")),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(artefact.options.get("input_block", 0)),
        }
        compiled = core.compile_model(core.read_model(artefact.path), "CPU", settings)
        request = compiled.create_infer_request()
        outputs = tuple(compiled.outputs)

        def run(inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
            found = request.infer(dict(enumerate(inputs)))
            return tuple(found[output] for output in outputs)

        return run


def input_block(model: "QuantizedModel | None") -> int:
    """Return the length of the blocks in which the products of `model` round what they read; 0 if they do not."""
    codes = model.scheme.activation if model is not None else None
    return codes.block if codes is not None else 0
