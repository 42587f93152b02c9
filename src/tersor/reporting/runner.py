"""run.py of an artefact folder: loads the model and runs it, with the runtime and numpy alone."""

import re

from tersor.errors import ArgumentError

_SCRIPT = '''"""Run {model} on random or given arrays. Needs only: pip install numpy onnxruntime"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--input", nargs="*", default=[], help=".npy files, one for each input; random where none is given")
parser.add_argument("--threads", type=int, default=1, help="threads inside one operator")
parser.add_argument("--batch", type=int, default=1, help="samples in a random input")
parser.add_argument("--runs", type=int, default=50, help="timed calls")
arguments = parser.parse_args()

options = ort.SessionOptions()
options.intra_op_num_threads = arguments.threads
session = ort.InferenceSession(str(Path(__file__).with_name("{model}")), options, providers=["CPUExecutionProvider"])
kinds = {{"tensor(float)": "f4", "tensor(double)": "f8", "tensor(float16)": "f2", "tensor(bool)": "?",
         "tensor(int64)": "i8", "tensor(int32)": "i4", "tensor(uint8)": "u1", "tensor(int8)": "i1"}}
feeds = {{}}
for place, spec in enumerate(session.get_inputs()):
    shape = [n if isinstance(n, int) else (1 if axis else arguments.batch) for axis, n in enumerate(spec.shape)]
    random = np.random.default_rng(0).standard_normal(shape).astype(kinds[spec.type])
    feeds[spec.name] = np.load(arguments.input[place], allow_pickle=False) if arguments.input else abs(random)

times = []
for _ in range(arguments.runs + 5):
    start = time.perf_counter()
    outputs = session.run(None, feeds)
    times.append(time.perf_counter() - start)
for spec, output in zip(session.get_outputs(), outputs):
    print(f"output {{spec.name}}: shape {{output.shape}}, {{output.dtype}}")
print(f"median {{1e3 * np.median(times[5:]):.3f}} ms over {{arguments.runs}} calls, {{arguments.threads}} thread(s)")
'''


def run_script(model: str = "model.onnx") -> str:
    """Return a Python script that runs `model`, a file beside it.

    Args:
        model: file name; letters, digits, `.`, `_`, `-` and `/` only.

    Raises:
        ArgumentError: if `model` is not such a name.

    Example:
        >>> "onnxruntime" in run_script("model.onnx")
        True
    """
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", model):
        raise ArgumentError(f"`model` must be a plain file name, got {model!r}.")
    return _SCRIPT.format(model=model)
