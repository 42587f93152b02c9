"""The `aotinductor` runtime: the captured graph compiled ahead of time to one `.pt2` package of machine code.

Opening such a package runs its code, so only one with the hash that its writer recorded is opened.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tersor.errors import ExportError
from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.files import check_hash
from tersor.exporting.runtimes import runtime
from tersor.exporting.silence import silence
from tersor.exporting.torch_runtime import as_session, missing_compiler

if TYPE_CHECKING:
    from tersor.exporting.program import Program


@runtime
@dataclass(frozen=True, slots=True)
class AotInductor:
    """Machine code for this kind of processor, with the weights as constants; opens without compiling.

    Source:
        https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html
    """

    name: str = "aotinductor"

    def missing(self) -> str:
        """Return the compiler that inductor needs and does not find."""
        return missing_compiler()

    def write(self, program: "Program", path: Path) -> Mapping[str, object]:
        """Compile the graph; some tens of seconds."""
        from torch._inductor import aoti_compile_and_package

        if program.rounded is not None:
            raise ExportError(
                "AOTInductor has no kernels for the integers of a quantized model. Export it to 'onnxruntime' or "
                "'openvino', or export the model in floating point."
            )
        with silence(), path.open("wb") as file:
            aoti_compile_and_package(program.graph, package_path=file, inductor_configs={"freezing": True})
        return {}

    def open(self, artefact: Artefact, *, threads: int) -> Session:
        """Load the machine code."""
        from torch._inductor import aoti_load_package

        check_hash(artefact)
        with silence():
            loaded = aoti_load_package(io.BytesIO(artefact.path.read_bytes()))
        return as_session(loaded, threads)
