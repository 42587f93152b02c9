"""`python -m bench.cifar10 [BUDGET]`: the README's real example, as a user runs it, with its outcome as a table.

Needs CIFAR-10 and the trained ResNet-20 (see examples/cifar10/data.py); skips, and says so, where they are missing.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = Path(__file__).with_name("results")


def command(budget: str, output: Path) -> list[str]:
    """Return the command line of the example."""
    return [
        sys.executable,
        "-c",
        "from tersor.cli import main; main()",
        "optimize",
        str(ROOT / "examples/cifar10/model.py") + ":build",
        f"--weights={DATA / 'resnet20_cifar10.safetensors'}",
        f"--data={ROOT / 'examples/cifar10/data.py'}:splits",
        "--max-drop=1%",
        f"--budget={budget}",
        f"--output={output}",
    ]


def table(record: dict, budget: str) -> str:
    """Return the outcome as Markdown."""
    lines = [
        "# ResNet-20 on CIFAR-10, drop at most 1% (relative), certified",
        "",
        f"`python -m bench.cifar10 {budget}`: {record['verdict']['sentence']}",
        "",
        f"Machine: {record['machine']['processor']}, {record['machine']['threads used']} thread; "
        + ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        + f". {record['aim']['limit']}.",
        "",
        "| candidate | accuracy, search | accuracy, sealed | speed-up (95% interval) | median ms | size kB | fate |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [row(entry) for entry in (record["base"], *record["candidates"])]) + "\n"


def row(entry: dict) -> str:
    """Return one line of the table."""

    def number(path: str, form: str, factor: float = 1.0) -> str:
        value = entry
        for key in path.split("."):
            value = (value or {}).get(key)
        return "" if value is None else format(value * factor, form)

    speed = number("speedup.value", ".2f")
    interval = f" ({number('speedup.low', '.2f')} to {number('speedup.high', '.2f')})" if speed else ""
    cells = (
        entry["name"],
        number("quality.value", ".4f"),
        number("certified.value", ".4f"),
        speed + interval,
        number("latency.median_s", ".3f", 1e3),
        number("size_bytes", ".0f", 1e-3),
        entry["dropped_because"].partition(":")[0] or ("certified" if entry["standing"] == "holds" else ""),
    )
    return f"| {' | '.join(cells)} |"


def main(budget: str) -> int:
    """Run the example and write its table."""
    if not DATA.is_dir():
        print(f"skipped: {DATA.name} is not beside the repository")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        status = subprocess.call(command(budget, output))
        if status not in (0, 3):
            return status
        record = json.loads((output / "report.json").read_text())
    record["command"] = f"python -m bench.cifar10 {budget}"
    text = json.dumps(record, indent=1) + "\n"
    for place, seen in ((folder, ""), (ROOT, ""), (ROOT.parent, "../")):  # where it ran says nothing
        text = text.replace(f"{place}/", seen)
    (RESULTS / "cifar10.json").write_text(text)
    (RESULTS / "cifar10.md").write_text(table(record, budget))
    print((RESULTS / "cifar10.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "15m"))
