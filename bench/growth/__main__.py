"""How time and memory of the steps grow with parameters and with layers, with the fitted exponents.

    python -m bench.growth [--seconds 120]

Transformers with random weights, each step in a fresh process; a step is not run on the next larger network once it
took longer than `--seconds`. Writes `bench/results/growth.json`, `.md` and `.svg` after every point, and goes on from
what they hold.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import altair
import numpy as np

from bench.growth.step import NEEDS_WEIGHTS, STEPS
from tersor.measurement.machine import this_machine

RESULTS = Path(__file__).parents[1] / "results"
#: Axis -> (width, blocks) of the networks, smallest first.
AXES = {
    "parameters": [(128, 4), (256, 4), (512, 4), (1024, 4), (2304, 4), (4608, 4)],
    "layers": [(128, 2), (128, 4), (128, 8), (128, 16), (128, 32), (128, 64)],
}
#: Widest network with weights: `prune` takes about twelve times their memory. Without, a billion takes none.
MOST_WIDTH = 1024


def run(step: str, width: int, blocks: int) -> dict | None:
    """Return the numbers of one point; None if the process failed."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.growth.step", step, str(width), str(blocks)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


#: Less than this is not seen beside what the imports took.
LEAST = {"processor_s": 0.0, "extra_bytes": 20e6}


def exponent(points: list[dict], axis: str, quantity: str) -> float:
    """Return the slope of log(quantity) over log(size), from the larger half of the points; nan below `LEAST`."""
    key = "parameters" if axis == "parameters" else "blocks"
    larger = sorted(points, key=lambda point: point[key])[len(points) // 2 :]
    seen = [point for point in larger if point[quantity] > LEAST[quantity]]
    if len(seen) < 2:
        return float("nan")
    sizes, values = ([point[name] for point in seen] for name in (key, quantity))
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def series(points: list[dict]) -> list[tuple[tuple[str, str], list[dict]]]:
    order = lambda point: (point["axis"], point["step"])
    return [(key, list(group)) for key, group in groupby(sorted(points, key=order), key=order)]


def page(result: dict) -> str:
    machine = result["machine"]
    lines = [
        "# Growth",
        "",
        f"`python -m bench.growth` on {machine['processor']}, one thread: transformers with random weights, each step "
        "in a fresh process, processor time. `trace` (with all groups) runs on the meta device, where weights take no "
        "memory; `prune` cuts 30% of the multiply-adds by magnitude and proves the result against the original; "
        "`quantize` folds, calibrates on two samples and rounds. Memory is what the step needs above the network. "
        "Exponents are fitted to the larger half of the points of each line.",
        "",
        "![growth](growth.svg)",
        "",
        "| axis | step | time grows with the power | memory grows with the power |",
        "|---|---|---|---|",
    ]
    for (axis, step), points in series(result["points"]):
        powers = (exponent(points, axis, quantity) for quantity in ("processor_s", "extra_bytes"))
        lines.append(f"| {axis} | {step} | {' | '.join(map(shown, powers))} |")
    lines += ["", "| step | parameters | blocks | width | processor time, s | memory above the network, MB |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [
        f"| {p['step']} | {p['parameters']:,} | {p['blocks']} | {p['width']} | {p['processor_s']:.2f} "
        f"| {p['extra_bytes'] / 1e6:.0f} |"
        for _, points in series(result["points"])
        for p in points
    ]
    return "\n".join(lines) + "\n"


def shown(power: float) -> str:
    return "too little to see" if np.isnan(power) else f"{power:.2f}"


def chart(points: list[dict]) -> altair.HConcatChart:
    def panel(axis: str, key: str) -> altair.Chart:
        rows = [
            {"size": p[key], "seconds": p["processor_s"], "step": p["step"]}
            for p in points
            if p["axis"] == axis
        ]
        return (
            altair.Chart(altair.Data(values=rows), width=300, height=220)
            .mark_line(point=True)
            .encode(
                altair.X("size:Q", title="parameters" if axis == "parameters" else "blocks").scale(
                    type="log"
                ),
                altair.Y("seconds:Q", title="processor time, s").scale(type="log"),
                altair.Color("step:N", title=""),
            )
        )

    return altair.hconcat(panel("parameters", "parameters"), panel("layers", "blocks"))


def write(result: dict, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "growth.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "growth.md").write_text(page(result))
    chart(result["points"]).save(folder / "growth.svg")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    most_s = options.seconds
    stored = options.results / "growth.json"
    result: dict = {"machine": asdict(this_machine()), "points": []}
    if stored.exists():
        result = json.loads(stored.read_text())
    known = {(p["axis"], p["step"], p["width"], p["blocks"]) for p in result["points"]}
    for step in STEPS:
        for axis, networks in AXES.items():
            for width, blocks in networks:
                too_wide = step in NEEDS_WEIGHTS and width > MOST_WIDTH
                if too_wide or (axis, step, width, blocks) in known:
                    continue
                found = run(step, width, blocks)
                if found is None:
                    print(f"{step} at width {width}, {blocks} blocks: failed")
                    break
                result["points"].append({"axis": axis, **found})
                print(result["points"][-1], flush=True)
                write(result, options.results)
                if found["seconds"] > most_s:
                    break


if __name__ == "__main__":
    main()
