"""The results of `bench.peers` as Markdown."""

from collections.abc import Sequence
from statistics import median

HEADER = (
    "tool",
    "accuracy (sealed)",
    "within the margin",
    "speed-up, batch 1, 1 thread (95%)",
    "ms",
    "batch 32, 1 thread",
    "batch 1, 2 threads",
    "batch 32, 2 threads",
    "file kB",
    "memory MB",
    "made in s",
)


def page(result: dict) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [
        "# Side by side",
        "",
        f"`python -m bench.peers` on {result['machine']['cores']} cores; {versions}.",
        "",
        "All files of one piece of work run in turns, each in fresh processes; speed-ups are against the unchanged "
        "network in ONNX Runtime at the same batch and threads. The first speed-up is the median over six launches of "
        "fresh processes with its 95% interval (files for torch: two launches, which take ten seconds to open each); "
        "the other settings rest on two launches. `within the margin`: the exact test on the sealed samples shows, at "
        "95% confidence, that the drop is at most the margin. Every tool gets the same samples and the same time; the "
        "time to make a file is wall-clock on one thread of a machine that others used as well. Where there are "
        "several seeds (network, split and training), a cell is their median and the interval the widest.",
    ]
    for work in dict.fromkeys(row["work"] for row in result["rows"]):
        lines += ["", *table(work, [row for row in result["rows"] if row["work"] == work])]
    lines += ["", "## Not run here", ""]
    lines += [
        f"- {name}: {reason}." for name, reason in (result["left_out"] | result["left_out_work"]).items()
    ]
    return "\n".join(lines) + "\n"


def table(work: str, rows: Sequence[dict]) -> list[str]:
    seeds, first = sorted({row["seed"] for row in rows}), rows[0]
    able = [row for row in rows if "accuracy" in row]
    original = median(row["original_accuracy"] for row in able)
    lines = [
        f"## {work}",
        "",
        f"{first['parameters']:,} parameters; original accuracy {original:.4f} on {able[0]['sealed']:,} sealed "
        f"samples; margin {first['margin']:g}; {first['budget_s']:g} s a tool; seeds: {', '.join(map(str, seeds))}; "
        f"{' and '.join(dict.fromkeys(row['machine'] for row in rows))}."
        + (f" {first['about']}" if first.get("about") else ""),
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{'---|' * len(HEADER)}",
    ]
    for tool in dict.fromkeys(row["tool"] for row in rows):
        lines.append(line(tool, [row for row in rows if row["tool"] == tool]))
    notes = [
        f"- {row['tool']}: {row['note']}." for row in rows if row["seed"] == seeds[0] and row.get("note")
    ]
    return [*lines, "", ahead(able), "", *notes]


def ahead(rows: Sequence[dict]) -> str:
    """Say which tool gives the fastest file that is shown to hold the margin, and where tersor stands."""
    speeds: dict[str, list[float]] = {}
    for row in rows:
        if row["p"] <= 0.05 and "ratio" in row["speed"].get("1x1", {}):
            speeds.setdefault(row["tool"], []).append(row["speed"]["1x1"]["ratio"])
    medians = {tool: median(ratios) for tool, ratios in speeds.items()}
    ours = {tool: ratio for tool, ratio in medians.items() if tool.startswith("tersor")}
    if not ours:
        return "tersor has no file here that was timed and shown to hold the margin."
    best, own = (max(found, key=lambda tool: found[tool]) for found in (medians, ours))
    if best == own:
        place = own.removeprefix("tersor")
        return f"tersor's{place} is the fastest file that is shown to hold the margin, {medians[best]:.2f}x."
    seeds = len({row["seed"] for row in rows})
    held = (
        f" where it holds it, with {len(speeds[best])} of {seeds} seeds" if len(speeds[best]) < seeds else ""
    )
    sentence = (
        f"The fastest file that is shown to hold the margin is that of {best}, {medians[best]:.2f}x{held}; tersor's "
        f"reaches {ours[own]:.2f}x"
    )
    steady = {tool: ratio for tool, ratio in medians.items() if len(speeds[tool]) == seeds}
    if held and own in steady and ours[own] == max(steady.values()):
        return f"{sentence}, the fastest of those that hold it with every seed."
    return f"{sentence}."


def line(tool: str, rows: Sequence[dict]) -> str:
    able = [row for row in rows if "accuracy" in row]
    if not able:
        return f"| {tool} | failed: {rows[0]['failed'].replace('|', '/')} {'| ' * (len(HEADER) - 2)}|"
    first = [row["speed"].get("1x1", {}) for row in able]
    cells = (
        tool,
        f"{median(row['accuracy'] for row in able):.4f}",
        f"{sum(row['p'] <= 0.05 for row in able)} of {len(rows)}",
        interval(first),
        middle(first, "median_s", 1e3, ".3f"),
        *(
            middle([row["speed"].get(key, {}) for row in able], "ratio", 1, ".2f")
            for key in ("32x1", "1x2", "32x2")
        ),
        f"{median(row['size_bytes'] for row in able) / 1e3:.0f}",
        middle(first, "peak_bytes", 1e-6, ".0f"),
        f"{median(row['made_s'] for row in able):.0f}",
    )
    return f"| {' | '.join(cells)} |"


def interval(speeds: Sequence[dict]) -> str:
    known = [speed for speed in speeds if "low" in speed]
    if not known:
        return middle(speeds, "ratio", 1, ".2f")
    low, high = min(speed["low"] for speed in known), max(speed["high"] for speed in known)
    return f"{median(speed['ratio'] for speed in known):.2f} ({low:.2f} to {high:.2f})"


def middle(entries: Sequence[dict], key: str, factor: float, form: str) -> str:
    values = [entry[key] for entry in entries if key in entry]
    return format(median(values) * factor, form) if values else ""
