"""`python -m bench.joint [ROW | ROW/PART ...]`: every contender at equal budget; writes results/joint.{json,md}.

Rows: cnn, mlp (digits), cifar10, minilm and chargpt (skipped where the data or the trained network is missing).
Parts: the contenders, such as `cnn/joint`, and `latency`. What is not named keeps its last results.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from bench.joint.contenders import SEARCHES, SEQUENCE, search, sequence
from bench.joint.latency import FITTED, HELD_OUT, predict
from bench.joint.rows import ROWS, one_thread
from tersor.measurement.machine import this_machine

RESULTS = Path(__file__).resolve().parents[1] / "results"
FILE = RESULTS / "joint.json"


def table(results: dict) -> str:
    """Return the results as Markdown."""
    lines = [
        "# The joint search against single methods and a fixed sequence",
        "",
        "`python -m bench.joint`: each contender has the same budget on the same machine; speed is the median ratio "
        "to the best free baseline of the original (ONNX Runtime, OpenVINO or torch), one sample a call, one thread, "
        "with its 95% interval. Searches are certified on the sealed samples; the fixed sequence is only checked on "
        "the search samples.",
        "",
        *_machines(results["rows"].values(), "machine"),
        "",
        "| row | contender | speed-up | quality, sealed (original) | kB | answer | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"].values():
        lines += [_line(row["name"], finish) for finish in row["finishes"].values()]
    lines += [
        "",
        f"Predicted against measured latency of {HELD_OUT} random plans, after fitting to {FITTED} others:",
        "",
        *_machines(results["rows"].values(), "latency_machine"),
        "",
        "| row | precision | median error | largest | within 5% | expected by the model |",
        "|---|---|---|---|---|---|",
    ]
    for row in results["rows"].values():
        lines += [
            f"| {e['row']} | {e['precision']} | {e['median']:.1%} | {e['most']:.1%} | {e['within']} of {HELD_OUT} | "
            f"{e['claimed']:.1%} |"
            for e in row["latency"].values()
        ]
    return "\n".join(lines) + "\n"


def _machines(rows: Iterable[dict], part: str) -> list[str]:
    """Return on which machine a part of each row was made: rows of different ones do not compare."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if part in row:
            names.setdefault(row[part], []).append(row["name"])
    return [f"- {', '.join(made)}: {machine}." for machine, made in names.items()]


def _line(name: str, finish: dict) -> str:
    quality = "" if finish["sealed"] is None else f"{finish['sealed']:.4f} ({finish['base']:.4f})"
    speed = f"{finish['speedup']:.2f}x ({finish['low']:.2f} to {finish['high']:.2f})"
    cells = (name, finish["contender"], speed, quality, f"{finish['bytes'] / 1e3:.0f}", finish["answer"])
    return f"| {' | '.join(cells)} | {finish['wall_s']:.0f} |"


def main(names: list[str]) -> int:
    """Run the rows, and write after each part."""
    one_thread()
    results = json.loads(FILE.read_text()) if FILE.exists() else {"rows": {}}
    for name in names or list(ROWS):
        row_name, _, part = name.partition("/")
        row = ROWS[row_name]()
        if row is None:
            print(f"skipped {name}: its data or trained network is missing")
            continue
        found = results["rows"].setdefault(row_name, {"finishes": {}, "latency": {}})
        found |= {"name": row.name, "budget": row.budget}
        for contender in (*SEARCHES, SEQUENCE):
            if part in ("", contender):
                print(f"{row.name}: {contender}", flush=True)
                finish = sequence(row) if contender == SEQUENCE else search(row, contender)
                found["finishes"][contender] = asdict(finish)
                found["machine"] = this_machine().processor
                _write(results)
        for precision in ("float", "static") if part in ("", "latency") else ():
            found["latency"][precision] = asdict(predict(row, precision))
            found["latency_machine"] = this_machine().processor
            _write(results)
    print(table(results))
    return 0


def _write(results: dict) -> None:
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    FILE.with_suffix(".md").write_text(table(results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
