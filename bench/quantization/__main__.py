"""Run with `python -m bench.quantization`; `--help` lists the budget. Writes bench/results/quantization.{json,md}.

ResNet-20 on CIFAR-10, calibrated on the same unlabelled training images by every contender. Each file runs in ONNX
Runtime on one thread. Latency: processor time of single images, every contender once a round, medians over rounds.
Drop: accuracy of the floating-point file minus that of the integer file on the same test images, with the normal 95
per cent interval of paired outcomes. SQNR: logits against those of the floating-point file.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from bench.quantization.references import writers
from examples.cifar10.data import FOLDER, read
from examples.cifar10.model import build
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export, open_artefact
from tersor.measurement.machine import this_machine
from tersor.quantization.fidelity import fidelity, sqnr
from tersor.quantization.hardware import detect
from tersor.quantization.probe import probe
from tersor.quantization.quantize import quantize

RESULTS = Path(__file__).parents[1] / "results"


@dataclass
class Row:
    """One contender."""

    name: str
    accuracy: float
    drop: float
    drop_half_width: float
    sqnr_db: float
    fidelity_db: float | None
    median_s: float
    speed: float
    size_bytes: int
    quantize_s: float


def main() -> None:
    """Race all contenders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration", type=int, default=256)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for recipe='auto'")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = read("test.parquet", 0, options.test)
    calibration, _ = read("train.parquet", 0, options.calibration)
    with tempfile.TemporaryDirectory() as folder:
        rows = race(Path(folder), calibration, (images, labels), options)
    write(rows, vars(options))


def race(folder: Path, calibration: np.ndarray, test: tuple[np.ndarray, np.ndarray], options) -> list[Row]:
    model = build().eval()
    model.load_state_dict(load_file(FOLDER.parent / "resnet20_cifar10.safetensors"))
    batches = [(torch.from_numpy(calibration[i : i + 64]),) for i in range(0, len(calibration), 64)]
    example = (torch.from_numpy(calibration[:2]),)
    plain = export(model, example, folder / "float.onnx")
    sessions, sizes, seconds, fidelities = {}, {}, {}, {}
    for name, make in makers(model, example, batches, (plain, calibration), options.budget).items():
        path, began = folder / f"{len(sessions)}.onnx", time.process_time()
        own = make(path)
        seconds[name] = time.process_time() - began
        artefact = Artefact("onnxruntime", path, path.stat().st_size, "")
        sessions[name], sizes[name] = open_artefact(artefact), path.stat().st_size
        fidelities[name] = fidelity(own, sessions[name], batches) if own is not None else None
        print(f"{name}: {sizes[name]} bytes, {seconds[name]:.0f} s", flush=True)
    names = ["floating point", *sessions]
    sessions["floating point"] = open_artefact(plain)
    sizes["floating point"], seconds["floating point"] = plain.size_bytes, 0.0
    logits = {name: run(sessions[name], test[0]) for name in names}
    medians = times({name: sessions[name] for name in names}, test[0][:1], options.rounds)
    return [
        row(name, logits, test[1], medians, (sizes[name], seconds[name], fidelities.get(name)))
        for name in names
    ]


def makers(model, example, batches, reference, budget: float) -> dict[str, Callable]:
    plain, calibration = reference

    def ours(recipe: str):
        def make(path: Path):
            small = quantize(model, example, batches, scheme="static", recipe=recipe, budget_s=budget)
            print(recipe, small.recipe, [(str(a.recipe), round(a.sqnr_db, 1)) for a in small.attempts])
            export(small, example, path)
            return small

        return make

    others = writers(plain.path, plain.inputs[0], calibration)
    return {"tersor (quick)": ours("quick"), "tersor (auto)": ours("auto")} | others


def run(session, images: np.ndarray) -> np.ndarray:
    return np.concatenate([session([images[i : i + 250]])[0] for i in range(0, len(images), 250)])


def times(sessions: dict, image: np.ndarray, rounds: int) -> dict[str, float]:
    seen: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            began = time.process_time()
            session([image])
            seen[name].append(time.process_time() - began)
    return {name: float(np.median(values[5:])) for name, values in seen.items()}


def row(name: str, logits: dict, labels: np.ndarray, medians: dict, facts: tuple) -> Row:
    base, own = logits["floating point"], logits[name]
    right, was = own.argmax(1) == labels, base.argmax(1) == labels
    lost = was.astype(float) - right.astype(float)
    half = 1.96 * float(lost.std()) / len(lost) ** 0.5
    size, seconds, faithful = facts
    return Row(
        name, float(right.mean()), float(lost.mean()), half, sqnr(base, own), faithful, medians[name],
        medians["floating point"] / medians[name], size, seconds,
    )  # fmt: skip


def write(rows: Sequence[Row], options: dict) -> None:
    """Write the results as data and as a table."""
    processor = detect()
    facts = {
        "machine": asdict(this_machine()),
        "processor": sorted(processor.features),
        "full_range_saturates": probe("conv").saturates,
        "options": options,
    }
    RESULTS.mkdir(exist_ok=True)
    document = {**facts, "rows": [asdict(r) for r in rows]}
    (RESULTS / "quantization.json").write_text(json.dumps(document, indent=1, default=str) + "\n")
    text = [
        "# Quantization", "", *str(__doc__).strip().splitlines()[2:], "",
        f"Test images: {options['test']}. Calibration images: {options['calibration']}. Processor: "
        f"{facts['machine']['processor']} ({', '.join(facts['processor'])}); its kernels "
        f"{'saturate' if facts['full_range_saturates'] else 'do not saturate'} at full range.", "",
        "| file | accuracy | drop (points) | SQNR (dB) | to simulation (dB) | median (ms) | speed | size (kB) "
        "| time to quantize (CPU s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        faithful = "" if r.fidelity_db is None else f"{r.fidelity_db:.1f}"
        text.append(
            f"| {r.name} | {100 * r.accuracy:.2f} % | {100 * r.drop:.2f} ± {100 * r.drop_half_width:.2f} | "
            f"{r.sqnr_db:.1f} | {faithful} | {1e3 * r.median_s:.3f} | {r.speed:.2f} | {r.size_bytes / 1e3:.0f} | "
            f"{r.quantize_s:.0f} |"
        )
    (RESULTS / "quantization.md").write_text("\n".join(text) + "\n")
    print("\n".join(text[-len(rows) - 2 :]))


if __name__ == "__main__":
    main()
