"""`python -m bench.bases NAME ...`: keep what `tersor train` wrote to bench/cache/bases/NAME.

Writes the curve of the training to NAME.json, and the weights, in half precision, to NAME.safetensors.
"""

import json
import sys

import numpy as np
from safetensors.torch import load_file, save_file

from bench.bases import CACHE, HERE

KEPT = ("metric", "before", "score", "optimizer", "batch", "steps", "arithmetic", "wall_s", "looks")


def keep(name: str) -> None:
    """Write curve and weights of one network."""
    written = json.loads((CACHE / name / "training.json").read_text())
    curve = {key: written[key] for key in KEPT}
    passes = np.array_split(written["losses"], len(written["looks"]))
    curve["mean_loss_of_pass"] = [round(float(np.mean(losses)), 4) for losses in passes]
    (HERE / f"{name}.json").write_text(json.dumps(curve) + "\n")
    state = load_file(CACHE / name / "model.safetensors")
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    save_file(half, HERE / f"{name}.safetensors")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        keep(name)
