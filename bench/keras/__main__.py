"""`python -m bench.keras`: write bench/results/keras.{json,md}.

The files are trained and saved by TensorFlow where the environment variable TENSORFLOW_PYTHON names an interpreter that
has it, else by Keras on torch; the table says which. Networks of `keras.applications` have random weights: only the
agreement of the conversion is measured on them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tersor
from tersor.errors import TersorError
from tersor.loading.keras.opening import from_keras, keras_on_torch

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
MAKE = ROOT / "examples" / "keras_mlp" / "make.py"
NET = ROOT / "examples" / "keras_mlp" / "net.py"
#: Networks of Keras and the size of their images.
NETWORKS = {
    "MobileNetV2": 96,
    "MobileNetV3Small": 96,
    "ResNet50V2": 64,
    "DenseNet121": 64,
    "EfficientNetB0": 64,
    "Xception": 96,
    "InceptionV3": 96,
    "ConvNeXtTiny": 64,
    "VGG16": 48,
}
#: Runs in another process: opens a file with stock Keras and prints the accuracy and the largest difference.
REOPEN = """
import sys, json, numpy as np, keras
data = np.load(sys.argv[2]); x, y = data["x_val"], data["y_val"]
model = keras.saving.load_model(sys.argv[1]); p = model.predict(x, verbose=0)[:, 0]
print(json.dumps({"accuracy": float(((p > 0.5) == y).mean()), "parameters": model.count_params(),
                  "difference": float(abs(p - np.load(sys.argv[3])).max())}))
"""


def outside() -> tuple[str, dict[str, str]]:
    """Return the interpreter that trains and reopens files, and its environment."""
    python = os.environ.get("TENSORFLOW_PYTHON", "")
    backend = "tensorflow" if python else "torch"
    return python or sys.executable, {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}


def chain(name: str, folder: Path, methods: tuple[str, ...], budget: str) -> dict[str, Any]:
    """Optimize the file of one optimizer and return what came out."""
    model = tersor.load_model(str(folder / f"mlp_{name}.keras"), arguments={"custom_objects": f"{NET}:MLP"})
    held, wanted = np.load(folder / "data.npz")["x_val"], np.load(folder / f"answers_{name}.npy")
    difference = float(np.abs(model(torch.from_numpy(held)).detach().numpy() - wanted).max())
    result = tersor.optimize(
        model, f"npz:{folder / 'data.npz'}", max_drop=0.02, goal="size", methods=methods, budget=budget
    )
    base = result.run.base
    certificate = result.certificate
    found = {
        "trained by": name,
        "methods": ", ".join(methods),
        "difference to the file's own answers": difference,
        "original bytes": base.artefact.size_bytes,
        "answer": result.answer.name,
        "answer bytes": result.artefact.size_bytes,
        "accuracy before": base.quality.value,
        "accuracy after": result.answer.quality.value,
        "certified": certificate is not None and certificate.holds,
        "sentence": result.sentence,
    }
    if "quantize" in methods:
        return found
    path = tersor.export_keras(result.model, folder / f"small_{name}.keras")
    np.save(folder / "small.npy", result.model(torch.from_numpy(held)).detach().numpy()[:, 0])
    python, environment = outside()
    words = [python, "-c", REOPEN, str(path), str(folder / "data.npz"), str(folder / "small.npy")]
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout
    return found | {"reopened": json.loads(told.strip().splitlines()[-1])}


def conversions() -> list[dict[str, Any]]:
    """Return time and agreement of the conversion of every network."""
    keras, rows = keras_on_torch("bench"), []
    for name, size in NETWORKS.items():
        model = getattr(keras.applications, name)(input_shape=(size, size, 3), weights=None, classes=10)
        start = time.perf_counter()
        try:
            module = from_keras(model)
        except TersorError as cause:
            rows.append({"network": name, "refused": str(cause)})
            continue
        x = torch.randn(2, size, size, 3, generator=torch.Generator().manual_seed(0))
        seconds = time.perf_counter() - start
        with torch.no_grad():
            difference = float((module(x) - model(x, training=False)).abs().max())
        turns = sum(node.target is torch.permute for node in module.graph.nodes)
        rows.append({"network": name, "seconds": seconds, "difference": difference, "turns": turns})
        print(rows[-1], flush=True)
    return rows


def written(record: dict[str, Any]) -> str:
    """Return the record as Markdown."""
    head = "trained by | methods | conversion differs by | bytes before | after | accuracy before | after | answer"
    lines = [
        "# Keras 3 models through the whole chain",
        "",
        "`python -m bench.keras`: `examples/keras_mlp` (16 units with ReLU, one with a sigmoid, binary cross-entropy), "
        f"trained and saved by Keras on {record['backend']}; goal `size`, drop at most 0.02, {record['budget']} each.",
        "",
        f"| {head} | certified | as `.keras` |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [chain_row(row, record["backend"]) for row in record["chains"]]
    lines += ["", "Conversion of `keras.applications` (random weights, two images):", ""]
    lines += ["| network | seconds | largest difference | axes turned |", "|---|---|---|---|"]
    lines += [conversion_row(row) for row in record["conversions"]]
    return "\n".join(lines) + "\n"


def chain_row(row: dict[str, Any], backend: str) -> str:
    """Return one line of the first table."""
    cells = [row["trained by"], row["methods"], format(row["difference to the file's own answers"], ".1e")]
    cells += [row["original bytes"], row["answer bytes"]]
    cells += [format(row[f"accuracy {when}"], ".4f") for when in ("before", "after")]
    cells += [row["answer"], "yes" if row["certified"] else "no"]
    again = row.get("reopened")
    cells.append(
        f"{again['parameters']} parameters, accuracy {again['accuracy']:.4f} on {backend}, "
        f"difference {again['difference']:.1e}"
        if again
        else ""
    )
    return f"| {' | '.join(map(str, cells))} |"


def conversion_row(row: dict[str, Any]) -> str:
    """Return one line of the second table."""
    if "refused" in row:
        return f"| {row['network']} | refused: {row['refused']} | | |"
    return f"| {row['network']} | {row['seconds']:.1f} | {row['difference']:.1e} | {row['turns']} |"


def main(budget: str) -> int:
    """Make the files, run every chain, write the tables."""
    python, environment = outside()
    record: dict[str, Any] = {"backend": environment["KERAS_BACKEND"], "budget": budget, "chains": []}
    record["conversions"] = conversions()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        subprocess.run([python, str(MAKE), made], env=environment, check=True)
        for name in ("sgd", "adam"):
            for methods in (("prune", "distill"), ("prune", "quantize", "distill")):
                record["chains"].append(chain(name, folder, methods, budget))
                print(record["chains"][-1], flush=True)
                (RESULTS / "keras.json").write_text(json.dumps(record, indent=1) + "\n")
                (RESULTS / "keras.md").write_text(written(record))
    print((RESULTS / "keras.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "40s"))
