"""Contenders, timed in turns and compared with the floating-point file on the same samples."""

import argparse
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tersor.exporting.artefact import Artefact, Session
from tersor.exporting.export import export, open_artefact, with_options
from tersor.loading.inputs import Inputs
from tersor.measurement.machine import this_machine
from tersor.quantization.fidelity import fidelity, sqnr
from tersor.quantization.hardware import Scheme, detect, scheme_for
from tersor.quantization.probe import probe
from tersor.quantization.quantize import quantize

RESULTS = Path(__file__).parents[1] / "results"
#: Weights that a part trains first; git does not see them.
CACHE = Path(__file__).parents[1] / "cache"
Arrays = Sequence[np.ndarray]


@dataclass(frozen=True)
class Contender:
    """One file.

    Attributes:
        artefact: the file.
        seconds: processor time that it took to make.
        fidelity_db: how well it reproduces its simulation; None if it has none.
    """

    artefact: Artefact
    seconds: float = 0.0
    fidelity_db: float | None = None


#: Writes a file to a path.
Maker = Callable[[Path], Contender]


@dataclass(frozen=True)
class Row:
    """What was found of one contender; `quality` is accuracy, or the negative loss in nats."""

    name: str
    quality: float
    drop: float
    drop_half_width: float
    sqnr_db: float
    fidelity_db: float | None
    median_s: float
    speed: float
    size_bytes: int
    quantize_s: float


def floating(model, example: Inputs, runtime: str, **how) -> Maker:
    return lambda path: Contender(with_options(export(model, example, path, runtime), **how))


def float_file(part: str, make: Maker) -> Artefact:
    """Return the floating-point file that references start from."""
    record = CACHE / part / "plain.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    if not record.exists():
        record.write_text(make(record.with_suffix(".onnx")).artefact.to_json())
    return Artefact.from_json(record.read_text())


def ours(model, example: Inputs, calibration: Sequence[Inputs], runtime: str = "onnxruntime", **how) -> Maker:
    """Quantize and export."""

    def make(path: Path) -> Contender:
        began = time.process_time()
        small = quantize(model, example, calibration, **how)
        seconds = time.process_time() - began
        if small.attempts:
            print(
                [(str(attempt.recipe), round(attempt.sqnr_db, 1)) for attempt in small.attempts], flush=True
            )
        return exported(small, example, calibration[:2], path, runtime, seconds)

    return make


def static_in_openvino() -> Scheme:
    """Return static integers whose simulation rounds where OpenVINO does."""
    return scheme_for(detect(), "static", "openvino")


def exported(
    small, example: Inputs, samples: Sequence[Inputs], path: Path, runtime: str, seconds: float
) -> Contender:
    artefact = export(small, example, path, runtime, check=False)
    return Contender(artefact, seconds, fidelity(small, open_artefact(artefact), samples))


def contest(
    part: str,
    makers: Mapping[str, Maker],
    evaluate: Callable[[Session], tuple[np.ndarray, np.ndarray]],
    call: Arrays,
    options: argparse.Namespace,
) -> list[Row]:
    """Make every contender, evaluate it, and time all of them in turns.

    Files and outputs stay in the cache, so that a run that was cut short goes on where it was; timing is always new.

    Args:
        part: name of the folder in the cache.
        makers: the first one is what the others are compared with; those whose name starts with `floating` are the
            free baselines, and the fastest of them is what speed counts from.
        evaluate: session to (outputs, score of each sample), higher is better.
        call: the arrays of one timed call.
        options: `rounds`, timed calls each, and `seconds`, after which no further contender is made.
    """
    began, folder = time.monotonic(), CACHE / part
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Contender] = {}
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, make in makers.items():
        record = folder / f"{'_'.join(re.findall('[A-Za-z0-9]+', name))}.json"
        late = time.monotonic() - began > options.seconds
        try:
            if not record.exists():
                if late:
                    raise TimeoutError("left out for lack of time; run the part again to add it")
                _keep(record, make(record.with_suffix(".onnx")), evaluate)
            made[name], found[name] = _kept(record)
        except Exception as error:  # A reference that does not run here is a result as well.
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        else:
            print(f"{name}: {found[name][1].mean():.4f}, {made[name].seconds:.0f} s", flush=True)
    medians = times(
        {name: open_artefact(contender.artefact) for name, contender in made.items()}, call, options.rounds
    )
    best = min(seconds for name, seconds in medians.items() if name.startswith("floating"))
    base = found[next(iter(made))]
    return [_row(name, made[name], base, found[name], (medians[name], best)) for name in made]


def _keep(record: Path, contender: Contender, evaluate) -> None:
    outputs, scores = evaluate(open_artefact(contender.artefact))
    np.savez(record.with_suffix(".npz"), outputs=outputs, scores=scores)
    facts = [contender.artefact.to_json(), contender.seconds, contender.fidelity_db]
    record.write_text(json.dumps(facts))


def _kept(record: Path) -> tuple[Contender, tuple[np.ndarray, np.ndarray]]:
    text, seconds, decibels = json.loads(record.read_text())
    with np.load(record.with_suffix(".npz")) as stored:
        return Contender(Artefact.from_json(text), seconds, decibels), (stored["outputs"], stored["scores"])


def times(sessions: Mapping[str, Session], call: Arrays, rounds: int) -> dict[str, float]:
    seen: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            began = time.process_time()
            session(call)
            seen[name].append(time.process_time() - began)
    return {name: float(np.median(values[rounds // 10 :])) for name, values in seen.items()}


def _row(name: str, contender: Contender, base, found, seconds: tuple[float, float]) -> Row:
    lost = base[1].astype(float) - found[1].astype(float)
    half = 1.96 * float(lost.std()) / len(lost) ** 0.5
    return Row(
        name, float(found[1].mean()), float(lost.mean()), half, sqnr(base[0], found[0]), contender.fidelity_db,
        seconds[0], seconds[1] / seconds[0], contender.artefact.size_bytes, contender.seconds,
    )  # fmt: skip


def write(part: str, title: str, rows: Sequence[Row], unit: str, facts: Mapping[str, Any]) -> None:
    """Add the rows of one part to the results, as data and as a table."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "quantization.json"
    document = json.loads(file.read_text()) if file.exists() else {}
    document = {"parts": document.get("parts", {})}
    document["parts"][part] = {
        "title": title, "unit": unit, "machine": asdict(this_machine()), "processor": sorted(detect().features),
        "full_range_saturates": probe("conv").saturates, "options": dict(facts), "rows": [asdict(r) for r in rows],
    }  # fmt: skip
    file.write_text(json.dumps(document, indent=1, default=str) + "\n")
    text = ["# Quantization", ""]
    for each in document["parts"].values():
        text += [*_table(each), ""]
    (RESULTS / "quantization.md").write_text("\n".join(text).rstrip() + "\n")
    print("\n".join(_table(document["parts"][part])))


def _table(part: Mapping[str, Any]) -> list[str]:
    loss = part["unit"] == "nats"
    machine, saturate = part["machine"], "saturate" if part["full_range_saturates"] else "do not saturate"
    lines = [
        part["title"], "",
        f"Processor: {machine['processor']} ({', '.join(part['processor'])}); its kernels {saturate} at full range. "
        f"Options: {', '.join(f'{key} {value}' for key, value in part['options'].items())}.", "",
        f"| file | {'loss (nats)' if loss else 'accuracy'} | {'increase (nats)' if loss else 'drop (points)'} "
        "| SQNR (dB) | to simulation (dB) | median (ms) | speed | size (kB) | time to quantize (CPU s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in part["rows"]:
        faithful = "" if r["fidelity_db"] is None else f"{r['fidelity_db']:.1f}"
        quality = f"{-r['quality']:.4f}" if loss else f"{100 * r['quality']:.2f} %"
        drop = (
            f"{r['drop']:.4f} ± {r['drop_half_width']:.4f}"
            if loss
            else f"{100 * r['drop']:.2f} ± {100 * r['drop_half_width']:.2f}"
        )
        lines.append(
            f"| {r['name']} | {quality} | {drop} | {r['sqnr_db']:.1f} | {faithful} | {1e3 * r['median_s']:.3f} "
            f"| {r['speed']:.2f} | {r['size_bytes'] / 1e3:.0f} | {r['quantize_s']:.0f} |"
        )
    return lines


def by_operator(artefact: Artefact, call: Arrays, calls: int = 50) -> dict[str, float]:
    """Return the milliseconds that one call of a file spends in each kind of operator, dearest first."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level, options.enable_profiling = 1, 3, True
    options.profile_file_prefix = str(artefact.path)
    session = onnxruntime.InferenceSession(artefact.path, options, providers=["CPUExecutionProvider"])
    for _ in range(calls):
        session.run(None, dict(zip(artefact.inputs, call, strict=True)))
    total: dict[str, float] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kind = event["args"]["op_name"]
            total[kind] = total.get(kind, 0.0) + event["dur"] / 1e3 / calls
    ranked = sorted(total.items(), key=lambda item: -item[1])
    return {kind: round(milliseconds, 3) for kind, milliseconds in ranked[:8]}
