"""`python -m bench.fuzz [MINUTES]`: change valid files and words, and see that each is read or refused in clear words.

Every round runs in a process of its own, so that a crash of a native parser is seen. Writes bench/results/fuzz.*.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.fuzz.targets import TARGETS

RESULTS = Path(__file__).resolve().parents[1] / "results"
#: Examples of one round: a few seconds each.
EXAMPLES = 400
#: A round that takes longer than this hangs.
PATIENCE_S = 120


def round_of(name: str, number: int) -> dict[str, Any]:
    """Run one round and return what it printed, or how it crashed."""
    words = [sys.executable, "-W", "ignore", "-m", "bench.fuzz.once", name, str(number), str(EXAMPLES)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return {"crash": f"no end after {PATIENCE_S} s"}
    if done.returncode:
        return {"crash": f"status {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def add(total: dict[str, Any], found: dict[str, Any], number: int) -> None:
    """Add the outcome of a round to the total of its target."""
    if "crash" in found:
        total["crashes"].append(f"seed {number}: {found['crash']}")
        return
    for key in ("read", "refused"):
        total[key] += found[key]
    total["slowest_s"] = max(total["slowest_s"], found["slowest_s"])
    total["unclear"] |= found["unclear"]


def written(record: dict[str, Any]) -> str:
    """Return the record as Markdown."""
    lines = [
        "# Changed files and words: each is read or refused in clear words",
        "",
        f"`python -m bench.fuzz {record['minutes']:g}`: {record['examples']:,} examples in {record['seconds']:.0f} s. "
        "Each row is a kind of file whose bytes were changed, cut and spliced by hypothesis; a crash ends the process "
        "of a round, an unclear error is any exception but tersor's own in one line.",
        "",
        "| target | read | refused | crashes | unclear errors | slowest (s) |",
        "|---|---|---|---|---|---|",
    ]
    for name, total in record["targets"].items():
        lines.append(
            f"| {name} | {total['read']} | {total['refused']} | {len(total['crashes'])} | {len(total['unclear'])} "
            f"| {total['slowest_s']:.2f} |"
        )
    faults = [
        f"- {name}: {text}"
        for name, total in record["targets"].items()
        for text in (*total["crashes"], *total["unclear"])
    ]
    return "\n".join([*lines, "", *(faults or ["No crash and no unclear error."])]) + "\n"


def main(minutes: float) -> int:
    """Run rounds until the time is up."""
    start, number = time.monotonic(), 0
    totals = {
        name: {"read": 0, "refused": 0, "crashes": [], "unclear": {}, "slowest_s": 0.0}
        for name in ("words", *TARGETS)
    }
    while time.monotonic() - start < 60 * minutes:
        for name, total in totals.items():
            if time.monotonic() - start < 60 * minutes:
                add(total, round_of(name, number), number)
                print(name, {k: v for k, v in total.items() if k != "unclear"}, total["unclear"], flush=True)
        number += 1
    seconds = time.monotonic() - start
    examples = sum(total["read"] + total["refused"] for total in totals.values())
    record = {"minutes": minutes, "seconds": seconds, "examples": examples, "targets": totals}
    (RESULTS / "fuzz.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "fuzz.md").write_text(written(record))
    print(written(record))
    return any(total["crashes"] or total["unclear"] for total in totals.values())


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0))
