"""`python -m bench`: every benchmark, one after the other; each writes bench/results/NAME.{json,md}.

`python -m bench NAME ...` runs some of them; `python -m bench --list` names them. `latency`, `peers` and `coverage` go
on where they were stopped. `python -m bench --quick` takes a sample of the measured comparisons, in at most 15 minutes,
and writes to build/bench-quick.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
QUICK_RESULTS = HERE.parent / "build" / "bench-quick"
#: What `--quick` runs, and how much of it.
QUICK = {
    "certification": ["--searches", "50"],
    "latency": ["--runs", "6", "--power-runs", "6", "--minutes", "3"],
    "peers": ["--quick"],
    "growth": ["--seconds", "3"],
}


def benchmarks() -> list[str]:
    """Return the names of the packages and modules that can be run."""
    packages = [path.parent.name for path in HERE.glob("*/__main__.py")]
    modules = [path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_")]
    return sorted(packages + modules)


def main(names: list[str]) -> int:
    """Run the named benchmarks, all without names; return how many failed."""
    known = benchmarks()
    if "--list" in names:
        print("\n".join(known))
        return 0
    quick = "--quick" in names
    names = [name for name in names if name != "--quick"]
    unknown = set(names) - set(known)
    if unknown:
        print(f"No benchmark is called {', '.join(sorted(unknown))}. There are: {', '.join(known)}.")
        return 2
    runs = {name: [] for name in names or known}
    if quick:
        runs = {
            name: [*QUICK[name], "--results", str(QUICK_RESULTS)] for name in names or QUICK if name in QUICK
        }
    failed = [
        name
        for name, words in runs.items()
        if subprocess.call([sys.executable, "-m", f"bench.{name}", *words])
    ]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
