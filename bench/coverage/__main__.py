"""Cut every group of every architecture in half, compare with the masked original, and write a table.

python -m bench.coverage                               all architectures
python -m bench.coverage bert timm/resnet18 torch/LSTM   some
"""

import argparse
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import median

from bench.coverage.harness import ZOO, Row, examine, limited, prepare

RESULTS = Path(__file__).parents[1] / "results"
STATUSES = {
    "exact": "every group was cut; the result equals the masked original",
    "healed": "exact after verification left out the edits that it found wrong",
    "locked": "no group can be cut",
    "no baseline": "the small random model itself gives values that are not finite, or does not run",
    "stopped": "an error or the time limit, named",
    "wrong": "a result that differs from the masked original was returned",
}


def table(rows: dict[str, Row]) -> str:
    """Return the rows as Markdown."""
    counts = Counter(row["status"] for row in rows.values())
    ran = len(rows) - counts["no baseline"]
    kept = [row["kept"] for row in rows.values() if "kept" in row] or [1.0]
    lines = [
        "# Coverage",
        "",
        f"{len(rows)} architectures, {ran} with a baseline that runs: "
        + ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        + f". Exact: {100 * counts['exact'] / max(ran, 1):.1f} %.",
        "",
        f"Half of every group went, at random. Parameters kept: {median(kept):.0%} in the median; attributes repaired: "
        f"{sum(row.get('attributes', 0) for row in rows.values())} in all. Models of images and words that "
        "are given words alone reach the part that reads words.",
        "",
        *(f"- **{status}**: {text}" for status, text in STATUSES.items()),
        "",
        "| architecture | status | prunable groups | worst proof | error | parameters reached | kept | attributes | "
        "trace (s) | note |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(name, row) for name, row in rows.items())]) + "\n"


def _line(name: str, row: Row) -> str:
    if "class" not in row:
        return f"| {name} | {row['status']} | | | | | | | | {row.get('reason', '')} |"
    opaque = ", ".join(f"`{op}` x{count}" for op, count in row["opaque"].items())
    note = "; ".join(part for part in (opaque, ", ".join(row["left_out"])) if part)
    return (
        f"| {name} | {row['status']} | {row['prunable']} of {row['groups']} | {row['worst_proof']:.0e} | "
        f"{row['error']:.0e} | {row['reached']:.0%} | {row['kept']:.0%} | {row['attributes']} | {row['trace_s']} | "
        f"{note} |"
    )


def write(rows: dict[str, Row]) -> None:
    """Write both results."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = dict(sorted(rows.items()))
    (RESULTS / "coverage.json").write_text(json.dumps(rows, indent=1))
    (RESULTS / "coverage.md").write_text(table(rows))


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="architectures; all of the zoo if none is given")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds per architecture")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the last run that are exact")
    options = parser.parse_args()
    prepare()

    last = RESULTS / "coverage.json"
    rows = json.loads(last.read_text()) if last.exists() and (options.resume or options.names) else {}
    exact = {name for name, row in rows.items() if row["status"] == "exact"} if options.resume else set()
    names = [name for name in options.names or ZOO if name not in exact]
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(limited, examine, name, options.limit): name for name in names}
        for done in as_completed(running):
            name, row = running[done], done.result()
            rows[name] = row
            print(f"{name:28s} {row['status']:12s} {row.get('reason', row.get('error'))}", flush=True)
            write(rows)
    print(table(rows).splitlines()[2])


if __name__ == "__main__":
    main()
