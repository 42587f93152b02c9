"""run.py of an artefact folder: loads the model and runs it, with the runtime and what that needs alone."""

import re
from collections.abc import Mapping
from string import Template

from tersor._check import one_of
from tersor.errors import ArgumentError
from tersor.exporting.onnx_runtime import LEVELS

#: Names of the main file of a folder, each with the packages that its run.py needs.
MODELS = {"model.onnx": "numpy onnxruntime", "model.pte": "executorch"}
_PROGRAM = ".pte"

_ONNX = Template('''"""Run $model on random or given arrays. Needs only: pip install numpy onnxruntime"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--input", nargs="*", default=[], help="one .npy file for each input; random arrays without it")
parser.add_argument("--threads", type=int, default=1, help="threads inside one operation")
parser.add_argument("--batch", type=int, default=1, help="samples in a random array")
parser.add_argument("--runs", type=int, default=50, help="timed calls")
arguments = parser.parse_args()

options = ort.SessionOptions()
options.intra_op_num_threads = arguments.threads
$settings
session = ort.InferenceSession(Path(__file__).with_name("$model"), options, providers=["CPUExecutionProvider"])
inputs = session.get_inputs()
if len(arguments.input) not in (0, len(inputs)):
    parser.error(f"--input takes {len(inputs)} files, for {', '.join(i.name for i in inputs)}")

kinds = {"float": "f4", "double": "f8", "float16": "f2", "bool": "?", "int64": "i8", "int32": "i4", "uint8": "u1"}
feeds = {}
for place, spec in enumerate(inputs):
    shape = [n if isinstance(n, int) else 1 if axis else arguments.batch for axis, n in enumerate(spec.shape)]
    random = abs(np.random.default_rng(0).standard_normal(shape)).astype(kinds[spec.type[7:-1]])
    feeds[spec.name] = np.load(arguments.input[place], allow_pickle=False) if arguments.input else random

times = []
for _ in range(arguments.runs + 5):
    start = time.perf_counter()
    outputs = session.run(None, feeds)
    times.append(time.perf_counter() - start)
for spec, output in zip(session.get_outputs(), outputs):
    print(f"output {spec.name}: shape {output.shape}, {output.dtype}")
print(f"median {1e3 * np.median(times[5:]):.3f} ms over {arguments.runs} calls, {arguments.threads} thread(s)")
''')

_EXECUTORCH = Template('''"""Run $model on random or given arrays. Needs only: pip install executorch"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Runtime

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--input", nargs="*", default=[], help="one .npy file for each input; random arrays without it")
parser.add_argument("--threads", type=int, default=1, help="threads of the process's one pool")
parser.add_argument("--batch", type=int, default=1, help="samples in a random array")
parser.add_argument("--runs", type=int, default=50, help="timed calls")
arguments = parser.parse_args()

portable_lib._unsafe_reset_threadpool(arguments.threads)
program = Runtime.get().load_program(Path(__file__).with_name("$model"))
method = program.load_method("forward")
inputs = [method.metadata.input_tensor_meta(i) for i in range(method.metadata.num_inputs())]
if len(arguments.input) not in (0, len(inputs)):
    parser.error(f"--input takes {len(inputs)} files")
largest = next((meta.sizes()[0] for meta in inputs if meta.sizes()), 1)
if arguments.batch > largest:
    parser.error(f"this file takes at most {largest} sample(s) a call")

# PyTorch's numbers of the types; sizes are the largest that the file takes.
kinds = {0: "u1", 1: "i1", 2: "i2", 3: "i4", 4: "i8", 5: "f2", 6: "f4", 7: "f8", 11: "?"}
feeds = []
for place, meta in enumerate(inputs):
    shape = [n if axis else arguments.batch for axis, n in enumerate(meta.sizes())]
    random = abs(np.random.default_rng(0).standard_normal(shape)).astype(kinds[meta.dtype()])
    feeds.append(np.load(arguments.input[place], allow_pickle=False) if arguments.input else random)
feeds = [torch.from_numpy(np.ascontiguousarray(array)) for array in feeds]

times = []
for _ in range(arguments.runs + 5):
    start = time.perf_counter()
    outputs = method.execute(feeds)
    times.append(time.perf_counter() - start)
for place, output in enumerate(outputs):
    print(f"output {place}: shape {tuple(output.shape)}, {output.dtype}")
print(f"median {1e3 * np.median(times[5:]):.3f} ms over {arguments.runs} calls, {arguments.threads} thread(s)")
''')


def run_script(model: str = "model.onnx", options: Mapping[str, object] | None = None) -> str:
    """Return a Python script that runs `model`, a file beside it.

    Args:
        model: file name; letters, digits, `.`, `_`, `-` and `/` only.
        options: how the runtime opens it, as in `Artefact.options`; None leaves the runtime's defaults.

    Raises:
        ArgumentError: if `model` is not such a name, or an option has a value that the runtime does not know.

    Example:
        >>> script = run_script("model.onnx", {"graph_optimization": "disable"})
        >>> "GraphOptimizationLevel.ORT_DISABLE_ALL" in script
        True
    """
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._/-]*", model):
        raise ArgumentError(f"`model` must be a plain file name, got {model!r}.")
    if model.endswith(_PROGRAM):
        return _EXECUTORCH.substitute(model=model)
    return _ONNX.substitute(model=model, settings="\n".join(_settings(options or {})))


def _settings(options: Mapping[str, object]) -> list[str]:
    level = one_of("graph_optimization", str(options.get("graph_optimization", "all")), LEVELS)
    lines = [f"options.graph_optimization_level = ort.GraphOptimizationLevel.{LEVELS[level]}"]
    if not options.get("memory_arena", True):
        lines.append("options.enable_cpu_mem_arena = False")
    entries = options.get("entries", {})
    for key, value in entries.items() if isinstance(entries, Mapping) else ():
        lines.append(f"options.add_session_config_entry({str(key)!r}, {str(value)!r})")
    return lines
