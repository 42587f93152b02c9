"""`python -m bench`: every benchmark, one after the other; each writes bench/results/NAME.{json,md}.

`python -m bench NAME ...` runs some of them; `python -m bench --list` names them.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


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
    unknown = set(names) - set(known)
    if unknown:
        print(f"No benchmark is called {', '.join(sorted(unknown))}. There are: {', '.join(known)}.")
        return 2
    failed = [name for name in names or known if subprocess.call([sys.executable, "-m", f"bench.{name}"])]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
